"""The learned scorers of clips: what each criterion sees, what they must tell apart, how they are made."""

import sys

import pytest
import safetensors.torch
import torch

import rewards
from pretraining.scorers import clips as recipe
from pretraining.scorers import clips_data, clips_faults
from pretraining.scorers.data import to_float
from rewards import weights
from rewards.clip_networks import CLIP_TOKENIZER, clips_in_chunks
from rewards.networks import TOKENIZER
from rewards.scene_video_score import LIMIT
from scenes import motion_prompts

PARTS = {
    "vq": "scene_video_quality",
    "mq": "scene_motion_quality",
    "ta": "scene_text_alignment",
}
SUMS = ["scene_video_score", "scene_video_score_unseen"]
N = 160


@pytest.fixture(scope="module")
def scorer():
    loaded = {name: rewards.get(name) for name in [*PARTS.values(), *SUMS]}
    return lambda name, clips, captions: loaded[name](clips, captions, [{} for _ in captions])


@pytest.fixture(scope="module")
def parts_of():
    """The z-scores of a criterion by the first or the second network."""
    loaded = {name: rewards.get(name) for name in SUMS}

    def find(name, criterion, clips, captions):
        return loaded[name].parts(clips, captions, [{} for _ in captions])[criterion]

    return find


@pytest.fixture(scope="module")
def held_out():
    """Clips float (N, 9, 3, 32, 32) of a seed range that no training uses, and their prompts."""
    prompts = clips_data.sample_prompts(N, 7_000_000)
    return to_float(clips_data.render_all(prompts, 7_000_000)), prompts


@pytest.fixture(scope="module")
def moving(held_out):
    """Those that go somewhere, and their captions."""
    rows = [i for i, p in enumerate(held_out[1]) if p["include"][0]["motion"]["kind"] == "move"]
    return held_out[0][rows], [held_out[1][i] for i in rows]


def texts(prompts):
    return [prompt["prompt"] for prompt in prompts]


@pytest.mark.parametrize("name", [PARTS["vq"], PARTS["mq"]])
def test_quality_does_not_depend_on_the_caption(scorer, held_out, name):
    clips, captions = held_out[0][:24], texts(held_out[1][:24])
    assert torch.equal(scorer(name, clips, captions), scorer(name, clips, captions[1:] + captions[:1]))
    assert torch.equal(scorer(name, clips, captions), scorer(name, clips, ["a photo of a teapot"] * 24))


@pytest.mark.parametrize("name", SUMS)
def test_still_and_shuffled_clips_move_worse(parts_of, moving, name):
    clips, captions = moving[0], texts(moving[1])
    frozen = clips[:, :1].expand_as(clips)
    shuffled = clips[:, [4, 0, 7, 2, 8, 1, 5, 3, 6]]
    good = parts_of(name, "mq", clips, captions)
    for bad in (frozen, shuffled):
        assert (good > parts_of(name, "mq", bad, captions)).float().mean() >= 0.85


@pytest.mark.parametrize("name", SUMS)
@pytest.mark.parametrize("fault", [clips_faults.teleport, clips_faults.blink, clips_faults.flicker])
def test_faults_of_motion_are_seen(parts_of, held_out, name, fault):
    clips, captions = held_out[0], texts(held_out[1])
    bad = fault(clips, torch.full((N,), 0.8), torch.Generator().manual_seed(1)).clamp(0, 1)
    rate = (parts_of(name, "mq", clips, captions) > parts_of(name, "mq", bad, captions)).float().mean()
    assert rate >= 0.85


@pytest.mark.parametrize("name", SUMS)
@pytest.mark.parametrize("family", ["A", "B"])
def test_corrupted_frames_look_worse(parts_of, held_out, name, family):
    clips, captions = held_out[0], texts(held_out[1])
    bad = clips_faults.corrupt_alike(clips, torch.full((N,), 0.8), family, torch.Generator().manual_seed(2))
    rate = (parts_of(name, "vq", clips, captions) > parts_of(name, "vq", bad, captions)).float().mean()
    assert rate >= 0.85


@pytest.mark.parametrize("name", SUMS)
def test_the_right_direction_agrees_more(parts_of, moving, name):
    clips, prompts = moving
    right = parts_of(name, "ta", clips, texts(prompts))
    wrong = [clips_data.edits(prompt)["opposite"][0] for prompt in prompts]
    assert (right > parts_of(name, "ta", clips, wrong)).float().mean() >= 0.85
    backwards = parts_of(name, "ta", clips.flip(1), texts(prompts))  # the same frames, the other way
    assert (right > backwards).float().mean() >= 0.85


def test_the_sum_is_that_of_its_parts_and_is_cut(scorer, parts_of, held_out):
    clips, captions = held_out[0][:32], texts(held_out[1][:32])
    noise = torch.rand(8, *clips.shape[1:], generator=torch.Generator().manual_seed(3))
    media, said = torch.cat([clips, noise]), captions + captions[:8]
    whole = torch.zeros(40)
    for criterion, name in PARTS.items():
        part = scorer(name, media, said)
        assert torch.equal(part, parts_of("scene_video_score", criterion, media, said))
        whole += part
    total = scorer("scene_video_score", media, said)
    torch.testing.assert_close(total, whole.clamp(-LIMIT, LIMIT), atol=1e-4, rtol=0)
    assert whole.min() < -LIMIT == total.min()
    assert not rewards.get_class(PARTS["ta"])().components(clips, captions, [{}] * 32)


def test_z_scores_are_relative_to_reference_clips(held_out):
    clips, captions = held_out[0], texts(held_out[1])
    model = rewards.get("scene_video_score").model
    grades = clips_in_chunks(model, clips, captions)
    recipe.normalise(model, clips, captions)
    found = clips_in_chunks(model.z_scores, clips, captions)
    torch.testing.assert_close(found.mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(found.std(0), torch.ones(3))
    torch.testing.assert_close(found * grades.std(0) + grades.mean(0), grades, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("name", SUMS)
def test_a_score_depends_on_its_own_clip_alone(scorer, held_out, name):
    clips, captions = held_out[0][:70], texts(held_out[1][:70])
    together = scorer(name, clips, captions)
    alone = torch.cat([scorer(name, clips[i : i + 1], captions[i : i + 1]) for i in range(0, 70, 7)])
    torch.testing.assert_close(alone, together[::7], atol=1e-4, rtol=1e-4)


def test_bad_input_is_said():
    reward = rewards.get("scene_video_score")
    with pytest.raises(ValueError, match=r"expected clips \(N, 9, 3, 32, 32\), got \(1, 5, 3, 32, 32\)"):
        reward(torch.rand(1, 5, 3, 32, 32), ["it moves left"], [{}])
    with pytest.raises(rewards.RewardError, match="judges clips"):
        reward(torch.rand(1, 3, 32, 32), ["it moves left"], [{}])
    for text, message in {
        "a teapot moves left": "do not know teapot",
        "it moves left " * 4: "has 12 words; at most 10",
    }.items():
        for name in ("scene_video_score", PARTS["ta"]):
            with pytest.raises(ValueError, match=message):
                rewards.get_class(name).check_prompts([{"prompt": text.strip()}])
        rewards.get_class(PARTS["mq"]).check_prompts([{"prompt": text}])


def test_weights_are_small_and_match_their_checksums():
    names = {name for plugin in (*PARTS.values(), *SUMS) for name in rewards.get_class(plugin).weights}
    weights.verify(weights.RESOURCES, names | {f"scorers/{recipe.REPORT}"})
    assert len(names) == 2 and sum((weights.RESOURCES / name).stat().st_size for name in names) < 3e6


# --- how they are made --------------------------------------------------------------------------------


def test_every_caption_of_the_moving_world_is_known():
    captions = {p["prompt"] for prompts in motion_prompts.split().values() for p in prompts}
    for prompts in motion_prompts.split().values():
        rewards.get_class("scene_text_alignment").check_prompts(prompts)
    ids = CLIP_TOKENIZER(sorted(captions))
    assert len({tuple(row.tolist()) for row in ids}) == len(captions)
    assert TOKENIZER.max_length == 12 and len(TOKENIZER.tokens) == 54  # the image scorers' own, as shipped


def test_wrong_captions_differ_in_one_attribute():
    text = "a red circle moves left slowly on white"
    (prompt,) = (p for p in motion_prompts.speed() if p["prompt"] == text)
    found = clips_data.edits(prompt)
    assert found["opposite"] == ["a red circle moves right slowly on white"]
    assert found["speed"] == ["a red circle moves left quickly on white"]
    assert "two red circles move left slowly on white" in found["count"]
    assert "a red circle stands still on white" in found["motion"]
    short = clips_data.edits(motion_prompts.from_first_frame(prompt, 0))
    assert short["count"] == ["they move left slowly"] and not {"color", "shape", "background"} & set(short)
    for prompt in clips_data.sample_prompts(300, 5):
        assert clips_data.caption(clips_data.parts(prompt)) == prompt["prompt"]
        assert prompt["prompt"] not in sum(clips_data.edits(prompt).values(), [])


def test_captions_that_may_hold_for_other_clips():
    first = {p["prompt"]: p for build in motion_prompts.TAGS.values() for p in build()}
    prompts = [
        first["a red circle moves left"],
        first["a red circle moves left slowly on white"],
        first["two red circles move left on black"],
        motion_prompts.from_first_frame(first["a blue square moves left"], 0),
    ]
    assert clips_data.Captions(prompts).may_agree(torch.arange(4)).tolist() == [
        [True, True, False, False],
        [False, True, False, False],
        [False, False, True, False],
        [True, True, False, True],  # "it moves left" holds for any one object
    ]


@pytest.mark.parametrize("fault", clips_faults.FAULTS, ids=lambda fault: fault.__name__)
def test_faults_are_seeded_and_graded(moving, fault):
    clips, change = moving[0][:40], []
    for severity in (0.0, 0.3, 1.0):
        one, two = (
            fault(clips, torch.full((40,), severity), torch.Generator().manual_seed(6)) for _ in range(2)
        )
        assert one.equal(two) and one.shape == clips.shape
        change.append((one - clips).abs().mean().item())
    assert change[0] < 1e-5 < change[1] < change[2]
    assert clips_faults.visible(clips, fault(clips, torch.ones(40), torch.Generator())).float().mean() > 0.8


def test_frames_are_corrupted_alike():
    clips = torch.full((6, 9, 3, 32, 32), 0.5)
    for family in "AB":
        found = clips_faults.corrupt_alike(clips, torch.ones(6), family, torch.Generator().manual_seed(7))
        assert torch.equal(found, found[:, :1].expand_as(found)) and not torch.equal(found[0], found[1])


def test_the_recipe_writes_what_the_rewards_read(tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "ranking_report", lambda model: {"vq_mild_A": 0.5})
    monkeypatch.setattr(recipe, "BATCH", 8)
    monkeypatch.setattr(sys, "argv", ["clips", "--out", str(tmp_path), "--scale", "0.001"])
    recipe.main()
    again = recipe.train("scene_video_score", 0.001)
    for name in SUMS:
        stored = safetensors.torch.load_file(tmp_path / f"{name}.safetensors")
        rewards.get(name).model.load_state_dict(stored)
    stored = safetensors.torch.load_file(tmp_path / "scene_video_score.safetensors")
    assert all(torch.equal(value, stored[key]) for key, value in again.state_dict().items())
