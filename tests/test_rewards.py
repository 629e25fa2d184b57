"""A contract that every registered reward must keep; no reward needs a test of its own to be tested."""

import random

import numpy as np
import pytest
import torch

import rewards
from core.media import medium_of, to_media
from rewards.base import Reward, RewardError
from scenes import motion_prompts
from scenes import prompts as prompt_sets
from scenes.motion import render_clip
from scenes.renderer import render_many


@pytest.fixture(scope="module")
def scenes():
    """Images with prompts for rewards that need objects, and for those that need text; and clips."""
    sets, rng = prompt_sets.split(), random.Random(0)
    found = {}
    for name in ("geneval_test", "ocr_test"):
        prompts = rng.sample(sets[name], 6)
        images = torch.from_numpy(render_many(prompts, 0)).permute(0, 3, 1, 2).float() / 255
        found[name] = images, [p["prompt"] for p in prompts], prompts
    prompts = rng.sample(motion_prompts.split()["motion_test"], 6)
    clips = to_media(np.stack([render_clip(prompt, 0) for prompt in prompts]))
    found["motion_test"] = clips, [p["prompt"] for p in prompts], prompts
    return found


def open_reward(name, request):
    """The reward as a user gets it: on small checkpoints where it has published weights."""
    if rewards.get_class(name).hub:
        request.getfixturevalue("small_checkpoints")
    if rewards.get_class(name).environment:
        request.getfixturevalue(f"{name}_environment")
    return rewards.get(name)


def cases():
    """Every reward; those that need an environment built take long."""
    for name in rewards.names():
        slow = rewards.get_class(name).environment is not None
        yield pytest.param(name, marks=[pytest.mark.slow] * slow)


@pytest.mark.parametrize("name", list(cases()))
def test_every_reward_keeps_the_contract(name, scenes, photographs, request):
    reward = open_reward(name, request)
    cls = rewards.get_class(name)
    assert reward.name == cls.name == name and reward.scale and reward.licence
    assert bool(cls.expected_base) == bool(cls.expected_source)
    if not cls.can_judge("image"):  # a camera that pans
        images, *of_each = photographs
        photographs = torch.stack([images.roll(shift, -1) for shift in (0, 3, 6, 9)], 1), *of_each
    sets = [photographs] if cls.hub else [*scenes.values()]
    if cls.role == "artefact":
        sets.append(photographs)
    checked = 0
    for images, texts, metadata in sets:
        if not cls.can_judge(medium_of(images)):
            continue
        try:
            cls.check_prompts(metadata)
        except ValueError:
            continue  # this reward cannot score these prompts, and says so
        scores = reward(images, texts, metadata)
        assert scores.shape == (6,) and scores.dtype == torch.float32 and torch.isfinite(scores).all()
        order = torch.tensor([3, 1, 5, 0, 2, 4])
        shuffled = reward(images[order], [texts[i] for i in order], [metadata[i] for i in order])
        assert torch.allclose(shuffled, scores[order], atol=1e-4, rtol=1e-4)
        alone = torch.cat(
            [reward(images[i : i + 1], texts[i : i + 1], metadata[i : i + 1]) for i in range(6)]
        )
        assert torch.allclose(alone, scores, atol=1e-4, rtol=1e-4)
        checked += 1
    assert checked


def test_a_sign_is_read_alike_beside_others():
    """Signs of all widths and heights, which a recogniser pads to a common width in a batch."""
    prompts = random.Random(0).sample(prompt_sets.split()["ocr_test"], 48)
    images = torch.from_numpy(render_many(prompts, 0)).permute(0, 3, 1, 2).float() / 255
    for i, image in enumerate(images):
        image[:, 20 : 20 + i % 7] = 0.5
    images += 0.05 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    images = images.clamp(0, 1)
    reader = rewards.get("ocr")
    assert reader.read(images) == [reader.read(image[None])[0] for image in images]


class Broken(Reward):
    name, scale, licence = "broken", "-", "-"

    def __init__(self, value):
        self.value = value

    def score(self, images, prompts, metadata):
        return self.value


@pytest.mark.parametrize("value", [torch.tensor([0.0, float("nan")]), torch.zeros(3)])
def test_a_wrong_answer_names_the_reward_and_the_prompt(value):
    with pytest.raises(RewardError, match=r"broken.*(second|first)"):
        Broken(value)(torch.zeros(2, 3, 4, 4), ["first", "second"], [{}, {}])


def test_an_unknown_reward_names_the_valid_ones():
    with pytest.raises(ValueError, match="geneval"):
        rewards.get("no_such_reward")


def test_the_recogniser_reads_as_the_network_that_ships(scenes):
    """Rewritten and in batches it gives the same probabilities and texts as one sign at a time upstream."""
    from pathlib import Path

    import numpy as np
    import rapidocr_onnxruntime
    from rapidocr_onnxruntime.ch_ppocr_rec import TextRecognizer
    from scipy.special import softmax

    model = Path(rapidocr_onnxruntime.__file__).parent / "models" / "ch_PP-OCRv4_rec_infer.onnx"
    upstream = TextRecognizer({"model_path": str(model), "rec_batch_num": 1, "rec_img_shape": [3, 48, 80]})
    reward = rewards.get("ocr")
    signs = np.random.default_rng(0).standard_normal((3, 3, 48, 96)).astype(np.float32)
    ours, theirs = softmax(reward.recogniser.session(signs)[0], axis=-1), upstream.session(signs)[0]
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    images = scenes["ocr_test"][0]
    texts = reward.read(images)
    assert len(set(texts)) > 1
    reward.__dict__["recogniser"] = upstream
    assert [reward.read(image[None])[0] for image in images] == texts


def test_an_image_that_is_not_finite_is_refused_and_its_prompt_named():
    images = torch.zeros(3, 3, 32, 32)
    images[1, 0, 5, 5] = float("nan")
    prompts = [f'a sign "{code}"' for code in ("A1", "B2", "C3")]
    with pytest.raises(RewardError, match="'ocr' was given an image that is not finite .'a sign .B2"):
        rewards.get("ocr")(images, prompts, [{} for _ in prompts])
