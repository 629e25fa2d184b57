"""Rewards with published weights: where a mistake in preparing, renaming or judging would hide in a score."""

import json
import pickle
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

import rewards
from rewards.__main__ import BLOCK, PAGE, get_plugin, table
from rewards.features import feature_names, get_features
from rewards.geneval_rules import correct, partial_score, strict_correct
from rewards.published import hub, images, mask2former, qwen_vl
from rewards.published.clip import CLIP_H
from rewards.published.open_clip import to_transformers
from rewards.soft_tifa_gm import answers
from rewards.unified_reward import read_score
from rewards.weights import WeightsError
from tests.small_checkpoints import open_clip_state, snapshot

# --- geneval


def thing(x: float = 0, y: float = 0, color: str = "red", size: float = 2):
    return SimpleNamespace(centre=(x, y), width=size, height=size, color=color)


PLACED = {"include": [{"class": "dog", "count": 1}, {"class": "cat", "count": 1, "position": ["left of", 0]}]}


def test_official_accuracy_allows_extra_objects_unless_excluded():
    """Cases worked out by hand from GenEval's evaluate_images.py."""
    two = {"include": [{"class": "dog", "count": 2}], "exclude": [{"class": "dog", "count": 3}]}
    for n in range(5):
        found = {"dog": [thing()] * n}
        assert correct(found, two) == (n == 2)
        assert correct(found, {"include": two["include"]}) == (n >= 2)
        assert strict_correct(found, two) == (n == 2)
    # Only the most confident objects, as many as wanted, are judged.
    red = {"include": [{"class": "dog", "count": 1, "color": "red"}]}
    assert correct({"dog": [thing(color="red"), thing(color="blue")]}, red)
    assert not correct({"dog": [thing(color="blue"), thing(color="red")]}, red)
    assert correct({"dog": [thing(10)], "cat": [thing(0), thing(20)]}, PLACED)
    assert not correct({"dog": [thing(10)], "cat": [thing(20), thing(0)]}, PLACED)
    assert not correct({"cat": [thing(0)]}, PLACED)


def test_partial_score_counts_a_relation_without_target_as_wrong():
    """Cases worked out by hand from the reward server's gen_eval.py."""
    assert partial_score({"dog": [thing(10)], "cat": [thing(0)]}, PLACED) == 1
    assert partial_score({"dog": [thing(0)], "cat": [thing(10)]}, PLACED) == pytest.approx(3 / 4)
    # Two dogs: the first clause is wrong (term 0), the cat is there (1), but there is no target (0).
    assert partial_score({"dog": [thing(9), thing(9)], "cat": [thing(0)]}, PLACED) == pytest.approx(1 / 3)
    assert partial_score({}, PLACED) == pytest.approx((0 + 0 + 0) / 3)
    assert partial_score({"dog": [thing()] * 16}, {"include": [{"class": "dog", "count": 1}]}) == -14


def test_genevals_overall_score_is_the_mean_of_its_tags():
    metadata = [{"tag": tag} for tag in ("counting", "colors", "counting", "counting")]
    scores = torch.tensor([1.0, 0.0, 1.0, 0.0])
    weights = rewards.get_class("geneval_mask2former").prompt_weights(metadata)
    assert (scores * weights).mean().item() == pytest.approx((2 / 3 + 0) / 2)
    assert weights.mean().item() == pytest.approx(1)
    assert rewards.get_class("clipscore").prompt_weights(metadata).tolist() == [1] * 4


def test_detections_are_scored_as_mmdet_scores_them():
    classes = torch.full((3, 81), -20.0)
    classes[0, 16], classes[1, 16], classes[2, 80] = 20.0, 1.0, 20.0  # a sure dog, an unsure one, nothing
    classes[1, 80] = 1.0
    masks = torch.full((3, 10, 12), -3.0)
    masks[0, 2:5, 4:9] = 2.0
    masks[1, 7:, :2] = 8.0
    found = mask2former.instances(classes, masks, threshold=0.3)
    assert list(found) == [16] and [o.box for o in found[16]] == [(4, 2, 9, 5), (0, 7, 2, 10)]
    sure, unsure = found[16]
    assert sure.score == pytest.approx(torch.tensor(2.0).sigmoid().item(), abs=1e-4)
    assert unsure.score == pytest.approx(0.5, abs=1e-3)
    assert sure.mask.sum() == 15 and sure.centre == (6.5, 3.5) and (sure.width, sure.height) == (5, 3)
    assert [len(o) for o in mask2former.instances(classes, masks, threshold=0.6).values()] == [1]
    many = mask2former.instances(classes[:1].expand(40, -1), masks[:1].expand(40, -1, -1), 0.3)
    assert len(many[16]) == 16  # GenEval's limit


def test_colours_are_judged_on_the_object_alone():
    seen = []

    class Clip:
        def pictures(self, crops):
            seen.extend(crops)
            return torch.eye(10)[[3]]

        def texts(self, texts):
            assert len(texts) == 30 and texts[9] == "a photo of a green cup"
            return torch.eye(10).repeat_interleave(3, 0)

    detector = mask2former.Mask2FormerDetector.__new__(mask2former.Mask2FormerDetector)
    detector.clip, detector._colour_classifiers = Clip(), {}
    mask = np.zeros((8, 8), dtype=bool)
    mask[2:6, 2] = mask[5, 2:7] = True
    cup = mask2former.Detection((2, 2, 7, 6), mask, 0.9)
    image = torch.zeros(3, 8, 8)
    image[1] = 1
    detector.name_colours(image, [cup], "cup")
    assert cup.color == "green"
    pixels = np.asarray(seen[0])
    assert pixels.shape == (4, 5, 3)  # as mmdet's mask2bbox, whose boxes end behind the last pixel
    assert (pixels[:, 0] == (0, 255, 0)).all() and (pixels[0, 1] == 0x99).all()


@pytest.mark.parametrize(
    ("clause", "message"),
    [
        ({"class": "remote"}, "class 'remote' is none of GenEval's.*tv remote"),
        ({"class": "dog", "color": "grey"}, "color 'grey'.*red, orange"),
        ({"class": "dog", "position": ["under", 0]}, "position 'under'.*left of"),
        ({"class": "dog", "position": ["above", 1]}, "later clause"),
    ],
)
def test_a_prompt_that_geneval_cannot_judge_is_an_error(clause, message):
    include = [{"class": "cat", "count": 1}, {"count": 1, **clause}]
    with pytest.raises(ValueError, match=message):
        rewards.get_class("geneval_mask2former").check_prompts([{"prompt": "p", "include": include}])


# --- images, names of parameters, inputs


def test_clipscore_scales_bilinearly_and_the_others_bicubically(small_checkpoints):
    clipscore, aesthetic = rewards.get("clipscore"), rewards.get("aesthetic_v2")
    assert clipscore.clip.fit is images.crop_to_bilinear and aesthetic.clip.fit is images.crop_to
    # Bicubic overshoots beside an edge, bilinear cannot.
    edge = Image.fromarray(np.repeat(np.uint8([[64] * 5 + [192] * 4]), 9, 0)).convert("RGB")
    bicubic, bilinear = (np.asarray(fit(edge, 20)) for fit in (images.crop_to, images.crop_to_bilinear))
    assert bilinear.min() == 64 and bilinear.max() == 192 and bicubic.min() < 64 and bicubic.max() > 192


def test_photographs_are_read_with_paddleocrs_detector_settings():
    detector = rewards.get("ocr").reader.text_det
    assert (detector.limit_side_len, detector.limit_type) == (960, "max")
    found = detector.postprocess_op
    assert (found.box_thresh, found.unclip_ratio, found.dilation_kernel) == (0.6, 1.5, None)


def test_squares_are_cut_or_padded_in_the_middle():
    wide = Image.new("RGB", (200, 100), "white")
    assert np.asarray(images.crop_to(wide, 50)).shape == (50, 50, 3)
    assert (np.asarray(images.crop_to(wide, 50)) == 255).all()
    padded = np.asarray(images.pad_to(wide, 40))[:, :, 0]
    assert padded.shape == (40, 40) and (padded[10:30] == 255).all() and not padded[:10].any()
    grey = images.normalised([wide], (0.5,) * 3, (0.5,) * 3)
    assert grey.shape == (1, 3, 100, 200) and torch.all(grey == 1)


def test_renamed_open_clip_weights_give_open_clips_features():
    """The cosines of open_clip_torch 3.3.0 for the parameters and inputs below."""
    from transformers import CLIPConfig, CLIPModel

    state = open_clip_state()
    for i, (name, value) in enumerate(sorted(state.items())):
        count = torch.arange(value.numel(), dtype=torch.float64)
        wave = (0.3 * torch.sin(1.7 * count + i)).reshape(value.shape).float()
        state[name] = wave + ("ln_" in name and name.endswith("weight"))
    sizes = {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={
            **sizes,
            "vocab_size": 228,
            "max_position_embeddings": 20,
            "eos_token_id": 227,
            "hidden_act": "gelu",
        },
        vision_config={**sizes, "image_size": 32, "patch_size": 8, "hidden_act": "gelu"},
        projection_dim=32,
    )
    model = CLIPModel(config).eval()
    model.load_state_dict(to_transformers(state))
    pixels = torch.sin(torch.arange(2 * 3 * 32 * 32).float()).reshape(2, 3, 32, 32)
    ids = torch.zeros(2, 20, dtype=torch.long)
    ids[0, :4] = torch.tensor([200, 5, 6, 227])
    ids[1, :6] = torch.tensor([200, 9, 8, 7, 3, 227])
    with torch.no_grad():
        image = model.get_image_features(pixels).pooler_output
        text = model.get_text_features(input_ids=ids).pooler_output
    cosine = torch.nn.functional.cosine_similarity(image, text)
    assert torch.allclose(cosine, torch.tensor([-0.90778, -0.199179]), atol=1e-5)
    with pytest.raises(ValueError, match="visual.surprise"):
        to_transformers({"visual.surprise": torch.zeros(1)})


def test_qwen_inputs_are_those_of_transformers_processor():
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (
        Qwen2VLImageProcessorPil,
        smart_resize,
    )

    rng = random.Random(0)
    for _ in range(200):
        width, height = rng.randint(30, 3000), rng.randint(30, 3000)
        least, most = rng.choice([(3136, 12845056), (200704, 200704), (3136, 100000)])
        expected = smart_resize(height, width, 28, least, most)
        assert qwen_vl.fitted_size(width, height, least, most) == expected[::-1]
        assert (
            qwen_vl.fitted_size(width, height, least, most, 32)
            == (smart_resize(height, width, 32, least, most)[::-1])
        )
    for version, values in ((qwen_vl.QWEN2, 1176), (qwen_vl.QWEN3, 1536)):
        shape = (2 * version.side, 3 * version.side, 3)
        picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
        means = {"image_mean": list(version.mean), "image_std": list(version.std)}
        processor = Qwen2VLImageProcessorPil(do_resize=False, patch_size=version.patch, **means)
        processed = processor(picture, return_tensors="pt")
        flat, grid = qwen_vl.patches(picture, version)
        assert [[1, *grid]] == processed.image_grid_thw.tolist() == [[1, 4, 6]]
        assert flat.shape[1] == values and torch.allclose(flat, processed.pixel_values, atol=1e-5)


def test_soft_tifa_is_the_probability_of_right_answers_as_generation_gives_it(small_checkpoints, photographs):
    """One question at a time through ``generate``, as GenEval 2's script asks; the reward asks in batches."""
    pictures, texts, metadata = photographs
    gm, am = rewards.get("soft_tifa_gm"), rewards.get("soft_tifa_am")
    forms = {  # GenEval 2, evaluation.py
        "Yes": ["Yes", "yes", " yes", " Yes"],
        "two": ["two", "Two", " two", " Two", "2", " 2"],
    }
    expected = []
    for picture, prompt in zip(pictures, metadata, strict=True):
        for asked in prompt["questions"]:
            text = asked["question"] + " Answer in one word."
            pil = images.to_pil(picture[None])
            inputs = qwen_vl.batch(gm.tokenizer, pil, [text], 1024, 2**24, "left", qwen_vl.QWEN3)
            image_id = gm.tokenizer.convert_tokens_to_ids("<|image_pad|>")
            out = gm.model.generate(
                **vars(inputs),
                mm_token_type_ids=(inputs.input_ids == image_id).int(),
                max_new_tokens=1,
                do_sample=False,
                output_scores=True,
                return_dict_in_generate=True,
            )
            odds = out.scores[0][0].softmax(-1)
            begin = [gm.tokenizer.encode(form)[0] for form in forms[asked["answer"]]]
            expected.append(odds[begin].sum())
    expected = torch.stack(expected).reshape(len(pictures), 3)
    assert torch.allclose(am(pictures, texts, metadata), expected.mean(1), rtol=1e-4)
    assert torch.allclose(gm(pictures, texts, metadata), expected.log().mean(1).exp(), rtol=1e-4)
    skills = gm.components(pictures, texts, metadata)
    assert torch.allclose(skills["count"], expected[:, 2], rtol=1e-4) and skills["verb"].isnan().all()
    assert expected.std() > 0 and gm.tokenizer.decode(inputs.input_ids[0]).startswith("<|im_start|>user\n")


@pytest.mark.parametrize(
    ("right", "number", "forms"),
    [
        ("Yes", False, ["Yes", "yes", " yes", " Yes"]),
        ("seven", True, ["seven", "Seven", " seven", " Seven", "7", " 7"]),
        ("eleven", True, ["eleven", "Eleven", " eleven", " Eleven", "other", " other"]),
    ],
)
def test_right_answers_have_the_forms_of_geneval_2(right, number, forms):
    assert answers(right, number) == forms


def test_a_prompt_without_questions_is_an_error():
    with pytest.raises(ValueError, match="'p' has no questions.*geneval2"):
        rewards.get_class("soft_tifa_gm").check_prompts([{"prompt": "p", "include": []}])


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("cup (object): 1\nFinal Score: 4", 4),
        ("Final Score:3.5", 3.5),
        ("Score: 4", 0),
        ("Final Score: 7", 0),
    ],
)
def test_the_score_is_read_from_the_answer(answer, score):
    assert read_score(answer) == score


@pytest.mark.parametrize("side", [512, 1024])
def test_ocr_finds_and_reads_text_in_photographs(side):
    grid = np.linspace(60, 190, side)
    noise = np.random.default_rng(0).normal(0, 6, (side, side, 3))
    pixels = (grid[:, None, None] + 0.2 * grid[None, :, None] + noise).clip(0, 255).astype(np.uint8)
    photo = Image.fromarray(pixels)
    draw = ImageDraw.Draw(photo)
    font = ImageFont.load_default(side // 12)
    draw.text((side // 8, side // 4), "Fresh", "white", font=font)
    draw.text((side // 4, side // 2), "Bread 42", "black", font=font)
    image = torch.from_numpy(np.asarray(photo).copy()).permute(2, 0, 1)[None].float() / 255
    ocr = rewards.get("ocr")
    texts = ['a shop sign "Fresh Bread 42"', 'a shop sign "fresh"', 'a sign "XQZ"']
    scores = ocr(image.expand(3, -1, -1, -1), texts, [{}] * 3)
    assert scores[:2].tolist() == [1, 1] and scores[2] < 0.5
    assert ocr.read(image[:, :, :, : side // 8]) == [""]  # no text


# --- artefacts


@pytest.mark.parametrize("side", [32, 512])
def test_artefact_statistics_tell_flat_grey_vivid_and_noisy_images_apart(side):
    generator = torch.Generator().manual_seed(0)
    flat = torch.full((3, side, side), 0.5)
    vivid = flat.clone()
    vivid[0, : side // 2], vivid[1:, : side // 2] = 1, 0
    noisy = torch.rand(3, side, side, generator=generator)
    smooth = torch.linspace(0, 1, side).expand(3, side, side)
    batch = torch.stack([flat, vivid, noisy, smooth])

    def measure(name):
        return rewards.get(name)(batch, [""] * 4, [{}] * 4)

    assert measure("saturation").tolist() == pytest.approx([0, 0.5, 2 / 3, 0], abs=0.02)
    entropy = measure("colour_entropy")
    assert entropy[:2].tolist() == [0, 1] and entropy[3] == pytest.approx(3, abs=0.01)
    assert entropy[2] > 7.5
    energy = measure("high_frequency_energy")
    assert energy[0] == 0 and energy[1] < 0.1 and energy[3] < 0.1
    assert energy[2] == pytest.approx(1 - np.pi / 16, abs=0.05)  # white noise: the band's share of the area
    edges = measure("edge_density")
    assert edges[0] == edges[3] == 0 and 0 < edges[1] < 0.1 < edges[2]


# --- encoders


@pytest.mark.parametrize("name", feature_names())
def test_every_encoder_keeps_the_contract(name, small_checkpoints):
    encoder = get_features(name)
    assert encoder.name == name and encoder.licence
    pictures = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    features = encoder(pictures)
    assert features.ndim == 2 and len(features) == 5 and features.dtype == torch.float32
    assert torch.allclose(encoder(pictures[2:3]), features[2:3], atol=1e-5)
    assert features.std(0).max() > 0


# --- documentation


def test_the_page_shows_the_table():
    block = BLOCK.search(PAGE.read_text())[0]
    assert block == f"\n{table()}", "write it again: python -m rewards page"
    for name in [*rewards.names(), *feature_names()]:
        assert f"| `{name}` |" in block


# --- weights


def test_missing_weights_name_reward_file_commit_and_command(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "PINS", tmp_path / "weights.yaml")
    with pytest.raises(WeightsError) as caught:
        hub.check([get_plugin("clipscore"), get_plugin("dinov3"), get_plugin("unified_reward")])
    clip, dino, unified, command = str(caught.value).splitlines()
    assert "'clipscore'" in clip and "model.safetensors" in clip and "32bd642" in clip
    assert "'dinov3'" in dino and "licence must be accepted" in dino
    assert "'unified_reward'" in unified and "no revision" in unified and "weights.yaml" in unified
    assert command.endswith("python -m rewards fetch clipscore dinov3 unified_reward")
    with pytest.raises(WeightsError, match="pickscore"):
        rewards.get("pickscore")


def test_a_pin_must_be_a_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "PINS", tmp_path / "weights.yaml")
    hub.PINS.write_text(f"{CLIP_H.repository}: main\n")
    with pytest.raises(WeightsError, match="'main' is not a commit"):
        hub.pinned(CLIP_H)
    hub.PINS.write_text(f"{CLIP_H.repository}: '{'a' * 40}'\n")
    assert hub.pinned(CLIP_H) == "a" * 40


def test_every_shard_of_split_weights_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    source = hub.HubFiles("an/example", (hub.INDEX,), "MIT", "b" * 40)
    folder = snapshot(tmp_path, source.repository, source.revision)
    folder.mkdir(parents=True)
    shards = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    (folder / hub.INDEX).write_text(json.dumps({"weight_map": shards}))
    (folder / "model-1.safetensors").touch()
    with pytest.raises(WeightsError, match="lacks model-2.safetensors of an/example"):
        hub.folder(source)
    (folder / "model-2.safetensors").touch()
    assert hub.folder(source) == folder


class Code:
    """An object whose unpickling would run code."""

    def __reduce__(self):
        return print, ("executed",)


@pytest.mark.parametrize("name", ["hps_v2_1", "imagereward", "aesthetic_v2"])
def test_a_checkpoint_with_code_is_refused(name, small_checkpoints, capsys):
    source = next(s for s in get_plugin(name).hub if s.files[0].endswith((".pt", ".pth")))
    path = hub.folder(source) / source.files[0]
    good = path.read_bytes()
    try:
        torch.save({"state_dict": Code()}, path)
        with pytest.raises(pickle.UnpicklingError):
            rewards.get(name)
    finally:
        path.write_bytes(good)
    assert "executed" not in capsys.readouterr().out
