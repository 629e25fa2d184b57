"""A dry run at the papers' scale: 10,000 images, twelve metrics, synthetic images."""

import torch

from benchmarks import scoring_at_scale
from evaluation import images, score
from evaluation.configuration import SuiteConfig


def test_ten_thousand_images_are_scored_a_bounded_piece_at_a_time(tmp_path, monkeypatch):
    seen = []

    class Counted(scoring_at_scale.StandIn):
        def score(self, images, prompts, metadata):
            seen.append(4 * images.numel())
            return super().score(images, prompts, metadata)

    monkeypatch.setattr(scoring_at_scale, "StandIn", Counted)
    found = scoring_at_scale.measure(count=10_000, side=16, per_prompt=4, chunk_bytes=2**20, folder=tmp_path)
    assert found["metrics"] == 13  # twelve, and the diversity
    assert found["values"] == 12 * 10_000 + 2_500
    assert max(seen) <= 2**20 < sum(seen) / scoring_at_scale.METRICS
    assert score.CHUNK_BYTES == 2**28


def test_the_images_of_the_dry_run_are_read_as_they_were_written(tmp_path):
    path = images.path_of(tmp_path, "x", 0)
    scoring_at_scale.write_images(path, 5, 4, per_prompt=1)
    suite = SuiteConfig(prompts="synthetic", metrics=["gold"])
    file = score.ScoredFile(path, suite, "x", 0, [{"prompt": str(n)} for n in range(5)], 1)
    ((pixels, prompts),) = file.read(torch.arange(5))
    assert pixels.shape == (5, 3, 4, 4) and 0.2 < pixels.mean() < 0.8 and prompts[4]["prompt"] == "4"
