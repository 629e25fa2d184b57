"""The whole evaluation of a finished run: its images sampled, then scored."""

from __future__ import annotations

from pathlib import Path

from core.files import remove_leftovers
from evaluation import images
from evaluation.best_of_n import evaluate_best_of_n
from evaluation.configuration import load_run_evaluation
from evaluation.sample import planned, sample_run
from evaluation.score import score_run
from runs.configuration import load_run


def evaluate_run(folder: Path, settings: Path, out: Path, out_images: Path, device: str = "cpu") -> None:
    """Write the scores, and leave or delete the images as the settings say."""
    config, settings = load_run(folder), load_run_evaluation(settings)
    remove_leftovers(folder / "images")
    if config.best_of:
        evaluate_best_of_n(folder, config, settings, out, out_images, device)
        return
    sample_run(folder, config, settings, device)
    score_run(folder, config, settings, out, out_images)
    if not settings.keep_images:
        for step, suite in planned(config, settings):
            images.path_of(folder / "images", suite, step).unlink(missing_ok=True)
