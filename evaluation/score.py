"""Tidy scores of a run's evaluation images, and of its cost."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file

import rewards
from methods.diversity import group_diversity
from rewards.features import get_features
from scenes.prompts import read as read_prompts
from training.configuration import load_run, read_yaml
from training.files import replacing

COLUMNS = ["run", "base", "task", "method", "seed", "step", "suite", "metric", "role", "value", "n_images"]
COSTS = {
    "train_wall_seconds": "wall_seconds",
    "train_cpu_seconds": "cpu_seconds",
    "train_device_seconds": "device_seconds",
    "peak_memory_mb": "peak_memory_mb",
    "images_generated": "images_generated",
    "reward_calls": "reward_calls",
    "gradient_steps": "gradient_steps",
}


def _count(prompt: dict) -> int:
    return sum(item["count"] for item in prompt["include"])


def _within(prompts: list[dict], bounds: list[int] | None) -> torch.Tensor:
    """Indices of the prompts whose number of objects lies in the inclusive range."""
    kept = [i for i, p in enumerate(prompts) if bounds is None or bounds[0] <= _count(p) <= bounds[1]]
    return torch.tensor(kept, dtype=torch.long)


def score_suite(
    images: torch.Tensor, prompts: list[dict], suite: dict, features: str
) -> list[tuple[str, float, int]]:
    """(metric, value, number of images) of one suite.

    Args:
        images: float (n, k, 3, H, W) in [0, 1], k images of each of n prompts.
    """
    n, k = images.shape[:2]

    def mean_of(metric: str, kept: torch.Tensor) -> tuple[float, int]:
        chosen = [prompts[i] for i in kept.repeat_interleave(k).tolist()]
        scores = rewards.get(metric)(images[kept].flatten(0, 1), [p["prompt"] for p in chosen], chosen)
        return scores.double().mean().item(), len(scores)

    kept = _within(prompts, suite["counts"])
    rows = [(metric, *mean_of(metric, kept)) for metric in suite["metrics"]]
    for metric, bounds in suite["accuracy_by_count"].items():
        rows.append((metric, *mean_of(suite["accuracy"], _within(prompts, bounds))))
    if k > 1:
        embedded = get_features(features)(images[kept].flatten(0, 1))
        diversity = group_diversity(embedded.reshape(len(kept), k, -1)).mean().item()
        rows.append(("diversity", diversity, len(kept) * k))
    return rows


def score_run(folder: Path, images: Path, settings: Path, out: Path) -> None:
    """Write the run's ``scores.parquet`` from its sampled images and its provenance."""
    config, settings = load_run(folder), read_yaml(settings)
    roles = {**settings["roles"][config.task], "diversity": "diversity"}
    key = {
        "run": config.run,
        "base": config.base,
        "task": config.task,
        "method": config.method,
        "seed": config.seed,
    }
    rows = []
    for path in sorted(images.glob("*.safetensors")):
        suite, step = path.stem.rsplit("_", 1)
        prompts = read_prompts(Path(settings["suites"][suite]["prompts"]))
        pixels = load_file(path)["images"].permute(0, 3, 1, 2).float() / 255
        pixels = pixels.unflatten(0, (len(prompts), settings["images_per_prompt"]))
        for metric, value, count in score_suite(
            pixels, prompts, settings["suites"][suite], settings["features"]
        ):
            role = roles.get(metric, "unseen")
            rows.append(
                {
                    **key,
                    "step": int(step),
                    "suite": suite,
                    "metric": metric,
                    "role": role,
                    "value": value,
                    "n_images": count,
                }
            )
    provenance = json.loads((folder / "provenance.json").read_text())
    for metric, name in COSTS.items():
        cost = {"step": config.training.iterations, "suite": "training", "metric": metric, "role": "cost"}
        rows.append(
            {**key, **cost, "value": float(provenance[name]), "n_images": provenance["images_generated"]}
        )
    with replacing(out) as temporary:
        pd.DataFrame(rows, columns=COLUMNS).to_parquet(temporary, index=False)


def collect(paths: list[Path], out: Path) -> None:
    """One table of all runs, ordered by run, step, suite and metric."""
    table = pd.concat([pd.read_parquet(p) for p in paths], ignore_index=True)
    table = table.sort_values(["run", "step", "suite", "metric"], kind="stable").reset_index(drop=True)
    with replacing(out) as temporary:
        table.to_parquet(temporary, index=False)
