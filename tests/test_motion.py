"""The world that moves: what is drawn is what the caption says."""

from __future__ import annotations

import numpy as np
import pytest

from scenes.composition import composition
from scenes.motion import DIRECTIONS, FRAMES, render_clip, travels
from scenes.motion_prompts import split
from scenes.segmentation import blobs

SETS = split()


def tracks(clip: np.ndarray) -> np.ndarray:
    """Mean centre of the coloured blobs by frame, (F, 2)."""
    found = blobs(clip / 255.0, min_area=4)
    return np.array([np.mean([blob.centre for blob in frame], axis=0) for frame in found])


@pytest.mark.parametrize("name", SETS)
def test_a_clip_shows_what_its_prompt_asks_for(name):
    for prompt in SETS[name][::23]:
        (item,) = prompt["include"]
        clip = render_clip(prompt, 7)
        for found in blobs(clip / 255.0, min_area=4):
            assert [blob.color for blob in found] == [item["color"]] * item["count"]
        centres = tracks(clip)
        motion = item["motion"]
        if motion["kind"] == "move":
            low, high = travels(motion)
            moved = (centres[-1] - centres[0]) @ np.array(DIRECTIONS[motion["direction"]])
            assert low - 1.1 < moved < high + 1.1, prompt["prompt"]
        else:
            assert np.abs(centres[-1] - centres[0]).max() < 0.6
            reach = np.abs(centres - centres[0]).max()
            assert reach < 0.6 if motion["kind"] == "still" else reach > 5


def test_clips_depend_on_prompt_and_seed_alone():
    prompt = SETS["motion_train"][3]
    assert (render_clip(prompt, 1) == render_clip(prompt, 1)).all()
    assert (render_clip(prompt, 1) != render_clip(prompt, 2)).any()
    assert render_clip(prompt, 1).shape[0] == FRAMES


@pytest.mark.parametrize("kind", ["motion", "motion_image"])
def test_no_composition_of_a_test_set_is_trained(kind):
    trained = {composition(prompt) for prompt in SETS[f"{kind}_train"]}
    assert trained.isdisjoint(composition(prompt) for prompt in SETS[f"{kind}_test"])


def test_motion_is_part_of_a_composition():
    left, right = ({**SETS["motion_test"][0], "include": [_moving(d)]} for d in ("left", "right"))
    assert composition(left) != composition(right)


def _moving(direction: str) -> dict:
    return {"class": "circle", "count": 1, "motion": {"kind": "move", "direction": direction}}


def test_a_prompt_with_a_first_frame_does_not_name_what_moves():
    for prompt in SETS["motion_image_test"]:
        assert prompt["prompt"].split()[0] in ("it", "they")
    seeds = [
        prompt["first_frame"] for name in ("motion_image_train", "motion_image_test") for prompt in SETS[name]
    ]
    assert len(set(seeds)) == len(seeds)
