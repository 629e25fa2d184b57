"""Rewards of the world that moves: what each sees, and what it is blind to."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import rewards
from core.media import to_media
from rewards.features import get_features
from rewards.motion import FULL, movement
from rewards.motion_rules import along, coloured_centres, path_length
from rewards.strict_motion import right_motion
from scenes.motion import FRAMES, TIMES, render_clip
from scenes.motion_prompts import split
from scenes.prompts import split as image_prompts
from scenes.renderer import paint, shape_alpha
from scenes.vocabulary import COLOURS

SETS = split()
RULES = ("motion", "strict_motion")
STILL = {"kind": "still"}
RIGHT = {"kind": "move", "direction": "right"}
ASIDE = {"kind": "bounce", "direction": "from side to side"}
SLOWLY, QUICKLY = ({**RIGHT, "speed": speed} for speed in ("slowly", "quickly"))
HOP = np.sin(np.pi * TIMES)[:, None]


def prompt_of(motion: dict, count: int = 1, color: str = "red") -> dict:
    item = {"class": "circle", "count": count, "color": color, "motion": motion}
    return {"tag": "direction", "prompt": "a circle", "include": [item]}


def draw(*tracks: np.ndarray, color: str = "red") -> torch.Tensor:
    """A clip (1, F, 3, H, W) of circles that follow tracks (F, 2)."""
    clip = np.full((FRAMES, 32, 32, 3), 0.92)
    for track in tracks:
        for frame, (x, y) in enumerate(track):
            clip[frame] = paint(clip[frame], shape_alpha("circle", x, y, 3.5), COLOURS[color])
    return torch.from_numpy(clip).movedim(-1, -3).float()[None]


def line(travel: float, direction=(1, 0), start=(10.0, 15.0)) -> np.ndarray:
    return np.array(start) + travel * TIMES[:, None] * np.array(direction)


def parts(name: str, clip: torch.Tensor, prompt: dict) -> dict[str, float]:
    found = rewards.get(name).parts(clip, [prompt["prompt"]], [prompt])
    return {part: values.item() for part, values in found.items()}


def score(name: str, clip: torch.Tensor, prompt: dict) -> float:
    return rewards.get(name)(clip, [prompt["prompt"]], [prompt]).item()


@pytest.mark.parametrize("name", SETS)
def test_drawn_clips_please_every_rule(name):
    prompts = SETS[name][::29]
    clips = to_media(np.stack([render_clip(prompt, 3) for prompt in prompts]))
    texts = [prompt["prompt"] for prompt in prompts]
    assert rewards.get("motion")(clips, texts, prompts).min() > 0.9
    assert (rewards.get("strict_motion")(clips, texts, prompts) == 1).all()
    travelled = rewards.get("scene_motion_amount")(clips, texts, prompts)
    still = torch.tensor([prompt["tag"] == "still" for prompt in prompts])
    assert (travelled[still] == 0).all() and (travelled[~still] > 2.5).all()


def test_the_proxy_is_half_movement_half_count():
    clip, prompt = draw(line(3)), prompt_of(RIGHT)
    assert parts("motion", clip, prompt) == pytest.approx({"movement": 3 / FULL, "count": 1.0}, abs=0.03)
    assert score("motion", clip, prompt) == pytest.approx((3 / FULL + 1) / 2, abs=0.03)
    assert parts("motion", clip, prompt_of(RIGHT, count=2))["count"] == 0
    half = torch.cat([clip[:, :3], draw(line(3), line(3, start=(10, 25)))[:, 3:]], 1)
    assert parts("motion", half, prompt)["count"] == pytest.approx(3 / FRAMES)


@pytest.mark.parametrize(
    ("track", "motion", "wanted"),
    [
        (line(6), RIGHT, 1.0),
        (line(30), RIGHT, 1.0),
        (line(3), RIGHT, 0.5),
        (line(-6), RIGHT, 0.0),
        (line(6, (0, 1)), RIGHT, 0.0),
        (line(6, (0.6, 0.8)), RIGHT, 0.6),
        (line(3.5), SLOWLY, 1.0),
        (line(7), QUICKLY, 0.5),
        (line(0), RIGHT, 0.0),
        (line(0), STILL, 1.0),
        (line(3, (0, 1)), STILL, 0.5),
        (line(9), STILL, 0.0),
        (6 * HOP * (1, 0), ASIDE, 1.0),
        (-6 * HOP * (1, 0), ASIDE, 1.0),
        (3 * HOP * (1, 0), ASIDE, 0.5),
        (6 * HOP * (0, 1), ASIDE, 0.0),
        (line(12), ASIDE, 0.0),  # it does not come back
        (6 * HOP * (1, 0) + line(3), ASIDE, 1 - 3 / 7.5),
    ],
)
def test_movement_is_measured_between_frames_as_stated(track, motion, wanted):
    assert movement(track, motion) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("motion", [RIGHT, STILL, ASIDE])
@pytest.mark.parametrize("frame", [0, FRAMES // 2, FRAMES - 1])
def test_movement_without_colour_in_a_frame_that_counts_is_nothing(motion, frame):
    track = 6 * HOP * (1, 0) if motion is ASIDE else line(0 if motion is STILL else 9)
    assert movement(track, motion) == pytest.approx(1)
    track[frame] = np.nan
    assert movement(track, motion) == (1 if motion is RIGHT and frame == FRAMES // 2 else 0)
    assert 0 <= score("motion", torch.full((1, FRAMES, 3, 32, 32), 0.5), prompt_of(motion)) == 0


def test_the_proxy_is_blind_to_path_identity_and_shape():
    prompt, leap = prompt_of(RIGHT), draw(np.where(TIMES[:, None] < 0.5, (10, 15), (20, 15)))
    green = draw(line(10), color="green")
    for clip in (leap, green):
        assert score("motion", clip, prompt) == 1 and score("gold", clip, prompt) < 0.2


def test_where_the_colour_is():
    clip = torch.full((1, 2, 3, 8, 10), 0.5)
    clip[0, 0, :, 2, 3] = clip[0, 0, :, 2, 7] = torch.tensor([0.9, 0.1, 0.1])
    clip[0, 0, :, 5, 5] = torch.tensor([0.6, 0.5, 0.5])  # too pale
    centres = coloured_centres(clip.movedim(-3, -1).numpy())
    assert centres.shape == (1, 2, 2) and centres[0, 0].tolist() == [5, 2] and np.isnan(centres[0, 1]).all()
    assert path_length(np.array([[0, 0], [np.nan, np.nan], [3, 4], [3, 3]])) == 6
    assert along(np.zeros(2), RIGHT) == 0


@pytest.mark.parametrize(
    ("track", "motion", "right"),
    [
        (line(10), RIGHT, True),
        (line(4), RIGHT, False),
        (line(20), RIGHT, False),
        (line(10, (np.cos(0.5), np.sin(0.5))), RIGHT, True),  # 29 degrees
        (line(10, (np.cos(0.55), np.sin(0.55))), RIGHT, False),
        (line(10, (-1, 0)), RIGHT, False),
        (line(4), SLOWLY, True),
        (line(10), SLOWLY, False),
        (line(16), QUICKLY, True),
        (line(8), QUICKLY, False),
        (line(0.9), STILL, True),
        (line(1.2), STILL, False),
        (2 * HOP * (0, 1), STILL, False),
        (8 * HOP * (-1, 0), ASIDE, True),
        (8 * HOP * (0, 1), ASIDE, False),
        (8 * HOP * (1, 0) + line(4), ASIDE, False),
        (3 * HOP * (1, 0), ASIDE, False),
    ],
)
def test_the_strict_rule(track, motion, right):
    assert right_motion(track, motion) is right


def test_the_strict_rule_wants_the_objects_in_every_frame():
    prompt, clip = prompt_of(RIGHT), draw(line(10))
    assert score("strict_motion", clip, prompt) == 1
    assert score("strict_motion", clip, prompt_of(RIGHT, count=2)) == 0
    assert score("strict_motion", draw(line(10), color="blue"), prompt) == 0
    two = draw(line(10, start=(8, 8)), line(10, start=(8, 22)))
    assert score("strict_motion", two, prompt_of(RIGHT, count=2)) == 1
    assert score("strict_motion", two, prompt) == 0
    clip[0, 4] = draw(line(10, start=(10, 25)), line(10))[0, 4]
    assert score("strict_motion", clip, prompt) == 0


def test_every_tag_has_the_same_weight_in_the_accuracy():
    prompts = SETS["motion_test"]
    weights = rewards.get_class("strict_motion").prompt_weights(prompts)
    by_tag: dict[str, float] = {}
    for weight, prompt in zip(weights.tolist(), prompts, strict=True):
        by_tag[prompt["tag"]] = by_tag.get(prompt["tag"], 0.0) + weight
    assert len(by_tag) == 5
    assert list(by_tag.values()) == pytest.approx([len(prompts) / len(by_tag)] * len(by_tag))


def test_consistency_is_vbenchs_formula_over_the_worlds_features():
    clips = torch.cat([draw(line(10)), draw(line(0)), draw(np.where(TIMES[:, None] < 0.5, (6, 6), (25, 25)))])
    scores = rewards.get("consistency")(clips, ["x"] * 3, [{}] * 3)
    found = get_features("scene_encoder")(clips[0])
    cosines = [
        (F.cosine_similarity(found[i], found[j], dim=0).clamp(min=0)).item()
        for i in range(1, FRAMES)
        for j in (i - 1, 0)
    ]
    assert scores[0].item() == pytest.approx(np.mean(cosines), abs=1e-5)
    assert scores[1].item() == pytest.approx(1, abs=1e-5)  # frozen
    assert scores[2] < scores[0] < scores[1]
    amount = rewards.get("scene_motion_amount")(clips, ["x"] * 3, [{}] * 3)
    assert amount.tolist() == pytest.approx([10, 0, np.hypot(19, 19)], abs=0.5)


@pytest.mark.parametrize("name", RULES)
def test_prompts_that_say_no_motion_are_refused(name):
    check = rewards.get_class(name).check_prompts
    for prompts in SETS.values():
        check(prompts)
    for name_of_set in ("geneval_test", "ocr_test"):
        with pytest.raises(ValueError, match="asks for no motion"):
            check(image_prompts()[name_of_set])
    both = prompt_of(RIGHT)
    both["include"].append({"class": "square", "count": 1, "color": "blue", "motion": STILL})
    with pytest.raises(ValueError, match="or not for one of all its objects"):
        check([both])
    with pytest.raises(ValueError, match="'north' is none of left, right, up, down"):
        check([prompt_of({"kind": "move", "direction": "north"})])


@pytest.mark.parametrize("name", [*RULES, "consistency", "scene_motion_amount"])
def test_images_are_refused(name):
    with pytest.raises(rewards.RewardError, match="judges clips"):
        rewards.get(name)(torch.rand(1, 3, 32, 32), ["a"], [prompt_of(RIGHT)])
