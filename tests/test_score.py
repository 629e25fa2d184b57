"""Scoring of stored evaluation images."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch

import rewards
from evaluation import images
from evaluation.configuration import SuiteConfig
from evaluation.score import ScoredFile, image_rows, score_files
from evaluation.scores import Scores, by_image

PROMPTS = [{"prompt": f"{n} circles", "include": [{"class": "circle", "count": n}]} for n in (1, 3, 10)]
SUITE = SuiteConfig(
    prompts="any", metrics=["geneval", "gold"], counts=(1, 9), accuracy_by_count={"accuracy_10": (10, 10)}
)


def stored(folder, step: int, seed: int) -> ScoredFile:
    path = images.path_of(folder, "counting", step)
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    images.write(path, pixels, k=2, suite="counting", step=step, made_from=str(seed))
    return ScoredFile(path, SUITE, "counting", step, PROMPTS, k=2)


ENCODERS = {"diversity": "any"}


@pytest.fixture
def files(tmp_path):
    return [stored(tmp_path, step, seed=step) for step in (0, 5)]


@pytest.fixture
def opened(monkeypatch):
    """How often each reward was opened; each scores an image by its mean plus the prompt's count."""
    counts = Counter()

    def get(name):
        counts[name] += 1
        return lambda pixels, prompts, metadata: (
            pixels.flatten(1).mean(1) + torch.tensor([float(p["include"][0]["count"]) for p in metadata])
        )

    monkeypatch.setattr(rewards, "get", get)
    monkeypatch.setattr("evaluation.score.get_features", lambda name: lambda pixels: pixels.flatten(1))
    return counts


def test_every_reward_is_opened_once_for_all_files(files, opened):
    score_files(files, ENCODERS)
    assert opened == {"geneval": 1, "gold": 1}


@pytest.mark.parametrize("kept_bytes", [0, 2**20])
@pytest.mark.parametrize("images_at_a_time", [1, 3, 100])
def test_values_belong_to_their_images_and_prompts(files, opened, monkeypatch, images_at_a_time, kept_bytes):
    monkeypatch.setattr("evaluation.score.KEPT_BYTES", kept_bytes)
    monkeypatch.setattr("evaluation.score.CHUNK_BYTES", images_at_a_time * 4 * 8 * 8 * 3)
    for file, scored in zip(files, score_files(files, ENCODERS), strict=True):
        parts = list(file.read(torch.arange(3)))
        assert max(len(pixels) for pixels, _ in parts) == min(images_at_a_time, 6)
        means = torch.cat([pixels.flatten(1).mean(1) for pixels, _ in parts]).reshape(3, 2).double()
        assert list(scored) == ["geneval", "gold", "accuracy_10", "diversity"]
        values = {metric: (kept.tolist(), v) for metric, (kept, v) in scored.items()}
        for metric, kept in (("geneval", [0, 1]), ("gold", [0, 1]), ("accuracy_10", [2])):
            wanted = means[kept] + torch.tensor([[1.0], [3.0], [10.0]])[kept]
            assert values[metric][0] == kept and torch.allclose(values[metric][1], wanted)
        assert values["diversity"][0] == [0, 1] and values["diversity"][1].shape == (2, 1)


def test_equal_images_are_scored_once(tmp_path, opened, monkeypatch):
    """As those of an untrained adapter at two steps."""
    scored = Counter()
    get = rewards.get

    def counting(name):
        reward = get(name)

        def score(pixels, prompts, metadata):
            scored[name] += len(pixels)
            return reward(pixels, prompts, metadata)

        return score

    monkeypatch.setattr(rewards, "get", counting)
    first, second, other = (stored(tmp_path, step, seed) for step, seed in ((0, 7), (5, 7), (9, 8)))
    by_file = score_files([first, second, other], ENCODERS)
    assert scored == {"geneval": 2 * (4 + 2), "gold": 2 * 4}
    assert by_file[0] is by_file[1] and not torch.equal(by_file[0]["gold"][1], by_file[2]["gold"][1])


def test_images_come_back_as_they_were_and_say_what_they_are(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (130, 4, 5, 3), dtype=np.uint8)  # three groups
    path = images.path_of(tmp_path, "ocr", 12)
    images.write(path, iter(pixels), k=2, suite="ocr", step=12, made_from="this")
    assert np.array_equal(np.stack(list(images.stream(path))), pixels)
    assert np.array_equal(
        images.load(path, np.array([1, 64]), 2), pixels[[2, 3, 128, 129]].reshape(2, 2, 4, 5, 3)
    )
    assert images.per_prompt(path) == 2 and images.made_from(path) == "this"
    table = pd.read_parquet(path)
    assert table[["step", "suite"]].drop_duplicates().values.tolist() == [[12, "ocr"]]
    assert table[["prompt", "image"]].values.tolist() == [[i // 2, i % 2] for i in range(130)]
    again = images.path_of(tmp_path, "ocr", 13)
    images.write(again, images.stream(path), k=2, suite="ocr", step=13, made_from="this")
    assert images.digest(again) == images.digest(path)


@pytest.mark.parametrize("damage", ["missing", "cut", "emptied", "scrambled"])
def test_a_missing_or_damaged_file_is_named_with_the_way_out(files, damage):
    path, whole = files[0].path, files[0].path.read_bytes()
    path.unlink()
    if damage != "missing":
        middle = whole.index(b"IHDR")
        scrambled = whole[:middle] + b"XXXX" + whole[middle + 4 :]
        path.write_bytes({"cut": whole[:-100], "emptied": b"", "scrambled": scrambled}[damage])
    with pytest.raises(images.ImageFileError, match=r"counting_000000.parquet is (missing|damaged).*again"):
        list(files[0].read(torch.arange(3)))


def test_a_metric_whose_authors_weigh_tags_alike_does_so_in_scores_and_cells(tmp_path):
    """Three prompts of one tag and one of another: weighted in the run's score and in a table's cell."""
    tags = ["counting", "counting", "counting", "colors"]
    prompts = [
        {"prompt": f"{i}", "tag": tag, "include": [{"class": "dog", "count": 1}]}
        for i, tag in enumerate(tags)
    ]
    suite = SuiteConfig(prompts="", metrics=["geneval_mask2former", "clipscore"])
    file = ScoredFile(tmp_path, suite, "geneval", 5, prompts, 2)
    kept, values = torch.arange(4), torch.tensor([[1, 1], [1, 1], [0, 0], [0, 1]], dtype=torch.float64)
    expected = {"geneval_mask2former": (2 / 3 + 1 / 2) / 2, "clipscore": 5 / 8}
    for metric, overall in expected.items():
        assert file.overall(metric, kept, values) == pytest.approx(overall)
        run = {"run": "r", "base": "b", "task": "t", "method": "m", "seed": 1, "step": 5, "suite": "geneval"}
        rows = pd.DataFrame([{**run, "metric": metric, "value": overall}])
        images = by_image(image_rows("r", file, metric, kept, values))
        assert Scores(rows, images).values(metric)[1].mean() == pytest.approx(overall)
