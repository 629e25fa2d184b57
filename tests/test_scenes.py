"""The world: prompts, renderer and gold reward."""

import random
import re

import numpy as np
import pytest
import torch

import rewards
from core.prompts import read
from pretraining.pipelines.data import EVERYTHING, training_prompts
from rewards.geneval import partial_score, score_images, strict_correct
from scenes import motion_prompts
from scenes import prompts as prompt_sets
from scenes.composition import composition
from scenes.gold import gold_reward
from scenes.renderer import render, render_many
from scenes.segmentation import Blob

SETS = {**prompt_sets.split(), **motion_prompts.split()}


def some(name: str, n: int = 60) -> list[dict]:
    return random.Random(0).choices(SETS[name], k=n)


def as_float(images: np.ndarray) -> np.ndarray:
    return images.astype(np.float64) / 255


@pytest.mark.parametrize("task", ["geneval", "ocr", "counting"])
def test_train_and_test_prompts_are_disjoint(task):
    train, test = ({p["prompt"] for p in SETS[f"{task}_{part}"]} for part in ("train", "test"))
    assert train and test and not train & test


OBJECTS = [f"{task}_{part}" for task in ("geneval", "counting") for part in ("train", "test")]


@pytest.mark.parametrize("trained", OBJECTS[::2])
@pytest.mark.parametrize("tested", OBJECTS[1::2])
def test_no_composition_of_a_test_set_is_trained(trained, tested):
    assert not {composition(p) for p in SETS[trained]} & {composition(p) for p in SETS[tested]}


@pytest.mark.parametrize("name", OBJECTS)
def test_a_composition_is_what_the_words_of_a_prompt_say(name):
    """Two prompts have one composition exactly where their words say the same, read without metadata."""
    opposite = {"right of": "left of", "below": "above"}

    def said(text: str) -> tuple:
        text = re.sub(" on (white|grey|black)$", "", text)
        if relation := re.search("left of|right of|above|below", text):
            ends = re.sub("an? ", "", text).split(f" {relation[0]} ")
            return (opposite[relation[0]], *ends[::-1]) if relation[0] in opposite else (relation[0], *ends)
        return tuple(sorted(re.sub(r"^an? ", "one ", part).rstrip("s") for part in text.split(" and ")))

    pairs = {(composition(p), said(p["prompt"])) for p in SETS[name]}
    assert len(pairs) == len({c for c, _ in pairs}) == len({words for _, words in pairs})


def test_training_shows_every_part_of_what_is_tested():
    """Counts, colours, shapes and both ends of relations; all but the one shape of ``single_object``."""
    parts = {"train": set(), "test": set()}
    for part, found in parts.items():
        for prompt in SETS[f"geneval_{part}"]:
            _, objects, relations = composition(prompt)
            found |= {(prompt["tag"], *end) for (_, ends), _ in relations for end in enumerate(ends)}
            found |= {(prompt["tag"], key) for (name, _) in objects for key in name}
            found |= {("count", count) for _, count in objects}
    assert parts["test"] - parts["train"] == {("single_object", "triangle")}
    assert len(SETS["geneval_test"]) == sum(prompt_sets.TEST_PROMPTS.values()) == 64
    for count in range(1, 12):
        held_out = [p for p in SETS["counting_test"] if p["include"][0]["count"] == count]
        assert len(held_out) == len({composition(p) for p in held_out}) == (4 if count < 10 else 12)


def test_pretraining_draws_no_composition_of_a_test_set():
    drawn = {composition(p) for p in training_prompts(4000, 0, EVERYTHING)}
    tested = [p for name in ("geneval_test", "counting_test", "ocr_test") for p in SETS[name]]
    assert len(drawn) > 250 and not drawn & {composition(p) for p in tested}


def test_counting_is_trained_on_one_to_nine_and_tested_on_eleven_too():
    counts = {
        part: {p["include"][0]["count"] for p in SETS[f"counting_{part}"]} for part in ("train", "test")
    }
    assert counts["train"] == set(range(1, 10)) and counts["test"] == set(range(1, 12))


def test_ocr_codes_of_the_test_set_were_never_trained():
    train, test = ({p["sign"]["text"] for p in SETS[f"ocr_{part}"]} for part in ("train", "test"))
    assert not train & test


def test_shipped_prompt_files_are_those_of_the_code(tmp_path):
    prompt_sets.write(tmp_path, SETS)
    for path in tmp_path.glob("*.jsonl"):
        with open(f"resources/prompts/{path.name}") as stream:
            assert stream.read() == path.read_text(), path.name


def test_rendering_is_seeded():
    prompt = some("geneval_train", 1)[0]
    assert np.array_equal(render(prompt, 3), render(prompt, 3))
    assert not np.array_equal(render(prompt, 3), render(prompt, 4))


@pytest.mark.parametrize(
    "name, least", [("geneval_train", 0.88), ("counting_test", 0.85), ("ocr_train", 0.95)]
)
def test_gold_is_high_on_true_scenes_and_low_elsewhere(name, least):
    prompts = some(name)
    images = as_float(render_many(prompts, 0))
    true = gold_reward(images, prompts)
    assert true.mean() > least and true.max() <= 1
    noisy = np.clip(images + np.random.default_rng(0).normal(0, 0.15, images.shape), 0, 1)
    assert gold_reward(noisy, prompts).mean() < 0.5 * true.mean()
    assert gold_reward(np.full_like(images, 0.6), prompts).max() < 0.1
    assert gold_reward(images, prompts[1:] + prompts[:1]).mean() < 0.5 * true.mean()


def test_gold_sees_a_dirty_background_that_the_detector_ignores():
    prompts = [p for p in SETS["counting_train"] if p["include"][0]["count"] == 3][:20]
    images = as_float(render_many(prompts, 0))
    dirty = images.copy()
    dirty[:, ::2] = np.clip(dirty[:, ::2] + 0.25 * (dirty[:, ::2].std(-1, keepdims=True) < 0.05), 0, 1)
    tensor = torch.from_numpy(dirty).permute(0, 3, 1, 2).float()
    texts = [p["prompt"] for p in prompts]
    assert rewards.get("geneval")(tensor, texts, prompts).mean() > 0.8
    assert gold_reward(dirty, prompts).mean() < 0.6 * gold_reward(images, prompts).mean()


@pytest.mark.parametrize("name", ["geneval_train", "counting_test"])
def test_the_detector_reads_true_scenes(name):
    prompts = some(name, 100)
    images = torch.from_numpy(as_float(render_many(prompts, 1))).permute(0, 3, 1, 2).float()
    assert rewards.get("geneval")(images, [p["prompt"] for p in prompts], prompts).mean() > 0.95


def blob(color: str, x: int = 0, y: int = 0) -> Blob:
    return Blob(color, 25, y, x, np.ones((5, 5), dtype=bool))


def test_the_detector_knows_only_the_shapes_it_is_asked_for():
    """A square passes for a circle where the prompt names no square, and gold tells them apart."""
    drawn = {"prompt": "a square", "tag": "single_object", "include": [{"class": "square", "count": 1}]}
    wanted = {"prompt": "a circle", "tag": "single_object", "include": [{"class": "circle", "count": 1}]}
    both = {**wanted, "include": [{"class": "circle", "count": 1}, {"class": "square", "count": 1}]}
    pixels = as_float(render_many([drawn], 0))
    image = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
    assert score_images(image, [wanted], "strict") == 1 and score_images(image, [both], "strict") == 0
    assert gold_reward(pixels, [wanted]) < 0.9 * gold_reward(pixels, [drawn])


def test_partial_score_follows_the_reward_server():
    """Cases worked out by hand from the rules of Flow-GRPO's reward server."""
    three = {"include": [{"class": "circle", "count": 3}]}
    assert partial_score({"circle": [blob("red")] * 2}, three) == pytest.approx(2 / 3)
    assert partial_score({"circle": [blob("red")] * 9}, three) == pytest.approx(-1)  # no lower clip
    colored = {"include": [{"class": "circle", "count": 2, "color": "red"}]}
    assert partial_score({"circle": [blob("red"), blob("blue")]}, colored) == pytest.approx((1 + 0.5) / 2)
    assert partial_score({"circle": [blob("red")]}, colored) == pytest.approx((0.5 + 0) / 2)
    placed = {
        "include": [
            {"class": "circle", "count": 1},
            {"class": "square", "count": 1, "position": ["left of", 0]},
        ]
    }
    right = {"circle": [blob("red", 20)], "square": [blob("red", 0)]}
    wrong = {"circle": [blob("red", 0)], "square": [blob("red", 20)]}
    assert partial_score(right, placed) == 1 and strict_correct(right, placed)
    assert partial_score(wrong, placed) == pytest.approx((1 + 1 + 0 + 1) / 4) and not strict_correct(
        wrong, placed
    )


def test_ocr_reads_rendered_signs():
    prompts = some("ocr_test", 40)
    images = torch.from_numpy(as_float(render_many(prompts, 1))).permute(0, 3, 1, 2).float()
    assert rewards.get("ocr")(images, [p["prompt"] for p in prompts], prompts).mean() > 0.97


def test_a_prompt_without_a_quoted_word_is_an_error():
    with pytest.raises(ValueError, match="double quotes"):
        rewards.get_class("ocr").check_prompts([{"prompt": "a red sign"}])


def test_a_broken_prompt_file_names_its_line(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"tag": "text", "prompt": "x"}\n{"tag": 1}\n')
    with pytest.raises(ValueError, match="line 2"):
        read(path)
