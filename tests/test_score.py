"""Scoring of stored evaluation images."""

from collections import Counter

import pytest
import torch
from safetensors.torch import save_file

import rewards
from evaluation.score import ImageFile, score_files

PROMPTS = [{"prompt": f"{n} circles", "include": [{"class": "circle", "count": n}]} for n in (1, 3, 10)]
SUITE = {
    "metrics": ["geneval", "gold"],
    "counts": [1, 9],
    "accuracy": "geneval",
    "accuracy_by_count": {"accuracy_10": [10, 10]},
}


@pytest.fixture
def files(tmp_path):
    found = []
    for step in (0, 5):
        path = tmp_path / f"counting_{step}.safetensors"
        images = torch.randint(0, 256, (6, 8, 8, 3), generator=torch.manual_seed(step), dtype=torch.uint8)
        save_file({"images": images}, path)
        found.append(ImageFile(path, SUITE, "counting", step, PROMPTS, k=2))
    return found


@pytest.fixture
def opened(monkeypatch):
    """How often each reward was opened; each scores an image by its mean plus the prompt's count."""
    counts = Counter()

    def get(name):
        counts[name] += 1
        return lambda images, prompts, metadata: (
            images.flatten(1).mean(1) + torch.tensor([float(p["include"][0]["count"]) for p in metadata])
        )

    monkeypatch.setattr(rewards, "get", get)
    monkeypatch.setattr("evaluation.score.get_features", lambda name: lambda images: images.flatten(1))
    return counts


def test_every_reward_is_opened_once_for_all_files(files, opened):
    score_files(files, "any")
    assert opened == {"geneval": 1, "gold": 1}


@pytest.mark.parametrize("images_at_a_time", [1, 3, 100])
def test_values_belong_to_their_images_and_prompts(files, opened, monkeypatch, images_at_a_time):
    monkeypatch.setattr("evaluation.score.CHUNK_BYTES", images_at_a_time * 4 * 8 * 8 * 3)
    for file, scored in zip(files, score_files(files, "any"), strict=True):
        parts = list(file.read(torch.arange(3)))
        assert max(len(images) for images, _ in parts) == min(images_at_a_time, 6)
        means = torch.cat([images.flatten(1).mean(1) for images, _ in parts]).reshape(3, 2).double()
        assert list(scored) == ["geneval", "gold", "accuracy_10", "diversity"]
        values = {metric: (kept.tolist(), v) for metric, (kept, v) in scored.items()}
        for metric, kept in (("geneval", [0, 1]), ("gold", [0, 1]), ("accuracy_10", [2])):
            wanted = means[kept] + torch.tensor([[1.0], [3.0], [10.0]])[kept]
            assert values[metric][0] == kept and torch.allclose(values[metric][1], wanted)
        assert values["diversity"][0] == [0, 1] and values["diversity"][1].shape == (2, 1)
