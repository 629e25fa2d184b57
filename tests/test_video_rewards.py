"""Rewards of clips: VideoAlign's port and VBench's measures, on small checkpoints of the same classes."""

from __future__ import annotations

import hashlib
import io
import pickle
import sys
import urllib.request

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import rewards
from rewards.__main__ import get_plugin
from rewards.published import hub, images, qwen_vl, video_align
from rewards.published.consistency import consistency
from rewards.published.github import GitHubFiles
from rewards.published.video_align import VideoAlignModel, merged, sampled_frames
from rewards.service import client, wire
from rewards.videoalign import NORMALISED
from rewards.weights import WeightsError
from tests.small_checkpoints import fill_cache
from tests.small_video_checkpoints import TEMPLATE, IsolatedDifference, video_align_state

VIDEO_ALIGN = ("videoalign", "videoalign_vq", "videoalign_mq", "videoalign_ta")
CONSISTENCIES = (
    "vbench_subject_consistency",
    "vbench_background_consistency",
    "vbench_temporal_flickering",
    "motion_smoothness",
)
WEIGHED = (*VIDEO_ALIGN, "vbench_subject_consistency", "vbench_background_consistency", "vbench_aesthetic")
CAPTIONS = ["a red circle moves left", "two blue squares go up and then down again", "x", "a still life"]
EMPTY = [{}] * len(CAPTIONS)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """The hub cache with small checkpoints of these rewards alone."""
    root = tmp_path_factory.mktemp("hub")
    sources = [source for name in WEIGHED for source in rewards.get_class(name).hub]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hub, "PINS", root / "weights.yaml")
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(root))
        fill_cache(root, sources, hub.pinned)
        yield root


@pytest.fixture(scope="module")
def clips() -> torch.Tensor:
    """Four clips (4, 9, 3, 36, 48) of smooth colours, 8 bits per channel."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(4, 3, 4, 4, 5, generator=generator)
    return (F.interpolate(coarse, (9, 36, 48), mode="trilinear").transpose(1, 2) * 255).round() / 255


# --- VideoAlign


def test_two_frames_a_second_are_seen_and_their_number_is_even():
    assert sampled_frames(93, 16.0) == [0, 8, 17, 25, 33, 42, 50, 59, 67, 75, 84, 92]  # 11.6 becomes 12
    assert sampled_frames(9, 16.0) == [0, 3, 5, 8]  # 1.1 becomes the fewest, four
    assert [len(sampled_frames(n, 16.0)) for n in (1, 2, 3, 4, 5, 44, 45)] == [1, 2, 2, 4, 4, 6, 6]
    assert len(sampled_frames(2000, 1.0)) == 768


def test_patches_of_a_clip_hold_two_frames_each():
    """Compared with a loop over patches; ``test_published`` compares still images with transformers'."""
    side = qwen_vl.QWEN2.patch
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (3, 4 * side, 6 * side, 3), dtype=np.uint8)
    flat, grid = qwen_vl.clip_patches([Image.fromarray(frame) for frame in pixels])
    assert grid == (2, 4, 6)
    mean, std = np.array(images.CLIP_MEAN), np.array(images.CLIP_STD)
    values = (pixels[[0, 1, 2, 2]] / 255 - mean) / std  # the last frame is repeated
    expected = []
    for first in (0, 2):
        for row in range(0, 4, 2):
            for column in range(0, 6, 2):
                for y in (row, row + 1):
                    for x in (column, column + 1):
                        rows, columns = slice(y * side, y * side + side), slice(x * side, x * side + side)
                        patch = values[first : first + 2, rows, columns]
                        expected.append(patch.transpose(3, 0, 1, 2).ravel())
    np.testing.assert_allclose(flat.numpy(), np.stack(expected), atol=1e-5)


def test_a_grade_is_the_heads_reading_of_its_token_at_plain_positions(cache, clips):
    """Against one sequence at a time, unpadded, with the low-rank updates left beside the weights."""
    from transformers import Qwen2VLForConditionalGeneration

    mine = rewards.get("videoalign")
    raw = torch.load(hub.file(video_align.WEIGHTS), weights_only=True)
    reference = Qwen2VLForConditionalGeneration(mine.model.model.config).eval()
    plain = {}
    for key, value in raw.items():
        name = key.removeprefix("base_model.model.").replace(".base_layer", "")
        if ".lora_" not in name and not name.startswith(("rm_head", "lm_head")):
            name = name.replace("model.", "language_model.", 1) if name.startswith("model.") else name
            plain[f"model.{name}"] = value
    report = reference.load_state_dict(plain, strict=False)
    assert report.missing_keys == ["lm_head.weight"] and not report.unexpected_keys
    for key in raw:
        if ".lora_A." in key:
            name = key.removeprefix("base_model.model.model.").partition(".lora_A")[0]
            module = reference.model.language_model.get_submodule(name)
            down, up = raw[key], raw[key.replace("lora_A", "lora_B")]

            def add(_, inputs, output, down=down, up=up):
                return output + (inputs[0] @ down.T @ up.T) * 2

            module.register_forward_hook(add)
    head = raw["base_model.model.rm_head.weight"]
    template = TEMPLATE.split('"""')[1]
    for row, (clip, caption) in enumerate(zip(clips, CAPTIONS, strict=True)):
        frames = [frame for frame in images.to_pil(clip[[0, 3, 5, 8]])]
        text = template.format(text_prompt=caption)
        inputs = qwen_vl.clip_batch(mine.model.tokenizer, [frames], [text], 128 * 784, 448 * 448, "right")
        with torch.inference_mode():
            embedded = reference.model.language_model.embed_tokens(inputs.input_ids)
            shown = inputs.input_ids == mine.model.tokenizer.convert_tokens_to_ids("<|video_pad|>")
            grid = inputs.image_grid_thw
            embedded[shown] = reference.model.visual(inputs.pixel_values, grid_thw=grid).pooler_output
            places = torch.arange(embedded.shape[1])[None]
            hidden = reference.model.language_model(inputs_embeds=embedded, position_ids=places)[0][0]
        total = 0
        for name, (mean, std) in NORMALISED.items():
            token = mine.model.tokenizer.convert_tokens_to_ids(f"<|{name.upper()}_reward|>")
            at = inputs.input_ids[0].tolist().index(token)
            total += ((hidden[at] @ head[0]).item() - mean) / std
        found = mine(clips[row : row + 1], [caption], [{}]).item()
        assert found == pytest.approx(total, abs=1e-3)


def test_the_overall_score_is_the_sum_of_the_three(cache, clips):
    reward = rewards.get("videoalign")
    scores, parts = reward(clips, CAPTIONS, EMPTY), reward.parts(clips, CAPTIONS, EMPTY)
    assert list(parts) == ["vq", "mq", "ta"]
    assert torch.allclose(scores, sum(parts.values()), atol=1e-5)
    for criterion, of_one in parts.items():
        alone = rewards.get(f"videoalign_{criterion}")
        assert torch.allclose(alone(clips, CAPTIONS, EMPTY), of_one, atol=1e-5)
        assert alone.model is reward.model and of_one.std() > 0  # one network for all


def test_looks_and_motion_are_judged_without_the_caption(cache, clips):
    reward = rewards.get("videoalign")
    one, other = (reward.parts(clips, texts, EMPTY) for texts in (CAPTIONS, CAPTIONS[::-1]))
    for criterion in ("vq", "mq"):
        assert torch.allclose(one[criterion], other[criterion], atol=1e-4)
    assert (one["ta"] - other["ta"]).abs().max() > 0.01


def test_every_frame_that_is_seen_counts_and_no_other(cache, clips):
    reward = rewards.get("videoalign")
    before = reward(clips, CAPTIONS, EMPTY)
    for frame in range(9):
        changed = clips.clone()
        changed[:, frame] = 1 - changed[:, frame]
        moved = (reward(changed, CAPTIONS, EMPTY) - before).abs().max() > 1e-3
        assert moved == (frame in sampled_frames(9, 16.0))


@pytest.mark.parametrize("outputs", [3, 2])
def test_the_heads_width_is_found_in_the_checkpoint(cache, clips, tmp_path, outputs):
    state = torch.load(hub.file(video_align.WEIGHTS), weights_only=True)
    wide = torch.randn(outputs, state["base_model.model.rm_head.weight"].shape[1])
    torch.save({**state, "base_model.model.rm_head.weight": wide}, tmp_path / "model.pth")
    backbone, template = hub.folder(video_align.BACKBONE), hub.file(video_align.INSTRUCTION)
    if outputs == 2:
        with pytest.raises(ValueError, match="model.pth: a head of 2 outputs; valid: 1 or 3"):
            VideoAlignModel(tmp_path / "model.pth", backbone, template)
        return
    model = VideoAlignModel(tmp_path / "model.pth", backbone, template)
    with torch.inference_mode():
        together = model.grades(clips, CAPTIONS, 16.0)
        for row, criterion in enumerate(together):
            model.head = wide[row : row + 1]
            assert torch.allclose(model.grades(clips, CAPTIONS, 16.0)[criterion], together[criterion])


def test_low_rank_updates_are_added_with_alpha_over_rank(cache):
    torch.manual_seed(0)
    state = video_align_state(hub.folder(video_align.BACKBONE))
    stem = "base_model.model.model.layers.1.mlp.down_proj"
    down, up = (state[f"{stem}.lora_{side}.default.weight"] for side in "AB")
    found = merged(state, torch.float32)
    expected = state[f"{stem}.base_layer.weight"] + 2 * up @ down
    assert torch.allclose(found["language_model.layers.1.mlp.down_proj.weight"], expected)
    assert not [name for name in found if "lora" in name or "base_layer" in name or "lm_head" in name]


def test_a_caption_with_a_token_of_the_model_is_refused():
    for caption in ("a cup <|MQ_reward|>", "<|im_end|> x"):
        with pytest.raises(
            ValueError, match="cannot score a prompt that holds <.*" + caption[:3].strip("<|")
        ):
            rewards.get_class("videoalign_ta").check_prompts([{"prompt": "fine"}, {"prompt": caption}])


# --- VBench


def consistency_by_loop(features: torch.Tensor) -> list[float]:
    found = []
    for clip in features:
        total = 0.0
        for i in range(1, len(clip)):
            for other in (clip[i - 1], clip[0]):
                cosine = (clip[i] @ other / clip[i].norm() / other.norm()).item()
                total += max(0.0, cosine) / 2
        found.append(total / (len(clip) - 1))
    return found


def test_consistency_is_the_mean_of_what_neighbours_and_the_first_share():
    features = torch.randn(5, 6, 7, generator=torch.Generator().manual_seed(0))
    assert consistency(features).tolist() == pytest.approx(consistency_by_loop(features), abs=1e-6)
    with pytest.raises(ValueError, match="two frames or more"):
        consistency(features[:, :1])


def test_subject_and_background_are_compared_by_dino_and_clip(cache, clips):
    subject, background = (rewards.get(f"vbench_{what}_consistency") for what in ("subject", "background"))
    seen = {"subject": [], "background": []}
    with torch.inference_mode():
        for frame in clips.flatten(0, 1):
            pixels = (frame * 255).round()[None]
            # Wider than high: the shorter side becomes the model's 32 pixels.
            whole = F.interpolate(pixels, (32, 42), mode="bilinear").round() / 255
            cut = F.interpolate(pixels, (32, 42), mode="bicubic").round().clamp(0, 255)[..., 5:37] / 255
            mean, std = (torch.tensor(v)[:, None, None] for v in (images.IMAGENET_MEAN, images.IMAGENET_STD))
            states = subject.model((whole - mean) / std, interpolate_pos_encoding=True).last_hidden_state
            seen["subject"].append(states[0, 0])
            mean, std = (torch.tensor(v)[:, None, None] for v in (images.CLIP_MEAN, images.CLIP_STD))
            projected = background.model.get_image_features((cut - mean) / std).pooler_output
            seen["background"].append(projected[0])
    for reward, features in zip((subject, background), seen.values(), strict=True):
        expected = consistency_by_loop(torch.stack(features).unflatten(0, clips.shape[:2]))
        assert reward(clips, CAPTIONS, EMPTY).tolist() == pytest.approx(expected, abs=1e-4)


def test_rules_over_pixels_are_those_of_a_loop(clips):
    found = {
        name: rewards.get(name)(clips, CAPTIONS, EMPTY)
        for name in ("vbench_temporal_flickering", "frame_difference", "motion_smoothness")
    }
    for row, clip in enumerate(clips):
        steps = [(clip[i] - clip[i - 1]).abs().mean().item() for i in range(1, 9)]
        missed = [(clip[i] - (clip[i - 1] + clip[i + 1]) / 2).abs().mean().item() for i in (1, 3, 5, 7)]
        assert found["frame_difference"][row].item() == pytest.approx(np.mean(steps), abs=1e-6)
        assert found["vbench_temporal_flickering"][row].item() == pytest.approx(1 - np.mean(steps), abs=1e-6)
        assert found["motion_smoothness"][row].item() == pytest.approx(1 - np.mean(missed), abs=1e-6)
    for name in found:
        with pytest.raises(ValueError, match="frames or more"):
            rewards.get(name)(clips[:, :1], CAPTIONS, EMPTY)


def test_flicker_and_motion_are_told_apart_by_smoothness_alone():
    step = torch.arange(9).view(1, 9, 1, 1, 1).expand(1, 9, 3, 8, 8) / 8
    flicker = (torch.arange(9) % 2).view(1, 9, 1, 1, 1).expand(1, 9, 3, 8, 8) / 8
    both = torch.cat([step, flicker])
    assert rewards.get("frame_difference")(both, ["", ""], [{}] * 2).tolist() == pytest.approx([1 / 8] * 2)
    assert rewards.get("motion_smoothness")(both, ["", ""], [{}] * 2).tolist() == pytest.approx([1, 7 / 8])


def test_a_frozen_clip_is_perfect_for_every_consistency_and_shows_as_no_change(cache, clips):
    frozen = clips[:, :1].expand_as(clips)
    for name in CONSISTENCIES:
        reward = rewards.get(name)
        assert reward(frozen, CAPTIONS, EMPTY).tolist() == pytest.approx([1] * 4, abs=1e-5), name
        assert (reward(clips, CAPTIONS, EMPTY) < 0.999).all(), name
    still = rewards.get("frame_difference")
    assert still(frozen, CAPTIONS, EMPTY).tolist() == [0] * 4 and (still(clips, CAPTIONS, EMPTY) > 0.01).all()


def test_aesthetic_is_one_linear_layer_on_clip_and_the_mean_over_frames(cache, clips):
    reward = rewards.get("vbench_aesthetic")
    head = torch.load(hub.file(rewards.get_class("vbench_aesthetic").hub[0]), weights_only=True)
    with torch.inference_mode():
        features = reward.clip.images(clips.flatten(0, 1))
    assert torch.allclose(features.norm(dim=-1), torch.ones(36), atol=1e-5)
    expected = (features @ head["weight"][0] + head["bias"][0]).unflatten(0, (4, 9)).mean(1) / 10
    assert torch.allclose(reward(clips, CAPTIONS, EMPTY), expected, atol=1e-6)
    assert torch.allclose(reward(clips[:, 0], CAPTIONS, EMPTY), reward(clips[:, :1], CAPTIONS, EMPTY))


def test_resizing_without_a_filter_takes_single_pixels():
    stripes = Image.fromarray(np.uint8([[[255 * (x % 2)] * 3 for x in range(32)]] * 32))
    small = np.asarray(images.shorter_to_aliased(stripes, 4))
    # Output pixel i lies between the input's pixels 8 i + 3 and 8 i + 4, one black and one white.
    assert (np.abs(small.astype(int) - 128) <= 1).all()
    odd = Image.fromarray(np.uint8([[[255 * (x % 3 == 1)] * 3 for x in range(30)]] * 30))
    assert (np.asarray(images.shorter_to_aliased(odd, 10)) == 255).all()  # Pillow's filter gives 85
    assert np.asarray(images.crop_to_aliased(stripes.resize((64, 32)), 16)).shape == (16, 16, 3)


# --- every one of them


@pytest.mark.parametrize("name", [*WEIGHED, "frame_difference", *CONSISTENCIES[2:]])
def test_a_clip_scores_alike_alone_and_in_any_company(name, cache, clips):
    reward = rewards.get(name)
    scores = reward(clips, CAPTIONS, EMPTY)
    assert scores.shape == (4,) and scores.std() > 0
    alone = [reward(clips[i : i + 1], CAPTIONS[i : i + 1], [{}]).item() for i in range(4)]
    assert scores.tolist() == pytest.approx(alone, abs=1e-4)
    turned = reward(clips.flip(0), CAPTIONS[::-1], EMPTY)
    assert torch.allclose(turned.flip(0), scores, atol=1e-4)


def test_missing_weights_are_named_before_any_job(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError) as caught:
        hub.check([get_plugin(name) for name in ("videoalign", "vbench_aesthetic")])
    *lines, command = str(caught.value).splitlines()
    assert "checkpoint-11352/model.pth of KlingTeam/VideoReward at 4f26600" in lines[0]
    assert "tokenizer.json" in lines[1] and "Qwen/Qwen2-VL-2B-Instruct" in lines[1]
    assert "prompt_template.py of github.com/KwaiVGI/VideoAlign at 219ab9d" in lines[2]
    assert "sa_0_4_vit_l_14_linear.pth of github.com/LAION-AI/aesthetic-predictor" in lines[3]
    assert command.endswith("python -m rewards fetch videoalign vbench_aesthetic")


@pytest.mark.parametrize("name", ["videoalign", "vbench_aesthetic", *CONSISTENCIES[:2]])
def test_a_checkpoint_with_code_is_refused(name, cache, capsys):
    source = next(s for s in get_plugin(name).hub if s.files[-1].endswith((".pth", ".bin")))
    path = hub.folder(source) / source.files[-1]
    good = path.read_bytes()
    try:
        torch.save({"weight": Code()}, path)
        with pytest.raises((pickle.UnpicklingError, OSError, ValueError)):
            rewards.get(name)
    finally:
        path.write_bytes(good)
    assert "executed" not in capsys.readouterr().out


class Code:
    """An object whose unpickling would run code."""

    def __reduce__(self):
        return print, ("executed",)


def test_a_file_of_github_must_be_the_one_recorded(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    content, asked = b"the text\n", []
    blob = hashlib.sha1(b"blob 9\0" + content).hexdigest()
    source = GitHubFiles("github.com/an/example", ("a/text.py",), "MIT", "c" * 40, blobs=(blob,))

    def answer(address, timeout):
        asked.append(address)
        return io.BytesIO(content)

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    plugin = type("Plugin", (), {"name": "example", "hub": (source,)})
    with pytest.raises(WeightsError, match="lacks a/text.py of github.com/an/example"):
        hub.folder(source)
    hub.fetch(plugin)
    assert hub.file(source).read_bytes() == content
    assert asked == [f"https://raw.githubusercontent.com/an/example/{'c' * 40}/a/text.py"]
    content = b"another\n"
    with pytest.raises(WeightsError, match="'example'.*not the file that was recorded"):
        hub.fetch(plugin)
    assert hub.file(source).read_bytes() == b"the text\n"


def test_clips_travel_to_the_scoring_service_as_they_are(clips):
    metadata = [{"tag": "direction", "include": [{"motion": {"kind": "move"}}]}] * 4
    came, prompts, found = wire.unpack(wire.pack(clips, CAPTIONS, metadata))
    assert torch.equal(came, clips) and prompts == CAPTIONS and found == metadata
    with pytest.raises(wire.WireError, match=r"uint8 \(N, 3, H, W\) or \(N, F, 3, H, W\), got.*9, 36, 48"):
        wire.unpack(wire.pack(clips[:, :, 0], CAPTIONS, metadata))


def test_the_scoring_service_judges_clips(clips, monkeypatch):
    monkeypatch.setattr(client, "interpreter", lambda name: sys.executable)
    isolated = client.IsolatedReward(IsolatedDifference)
    try:
        scores = isolated(clips, CAPTIONS, EMPTY)  # 16 frames a request: one clip at a time
    finally:
        isolated.close()
    assert torch.allclose(scores, rewards.get("frame_difference")(clips, CAPTIONS, EMPTY), atol=1e-6)
