"""Tidy scores of a run's evaluation images, one by one and in the mean, and of its cost."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file

import rewards
from evaluation.sample import MEASURES
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


def count_objects(prompt: dict) -> int:
    return sum(item["count"] for item in prompt["include"])


def _within(prompts: list[dict], bounds: list[int] | None) -> torch.Tensor:
    """Indices of the prompts whose number of objects lies in the inclusive range."""
    kept = [i for i, p in enumerate(prompts) if bounds is None or bounds[0] <= count_objects(p) <= bounds[1]]
    return torch.tensor(kept, dtype=torch.long)


def score_suite(
    images: torch.Tensor, prompts: list[dict], suite: dict, features: str
) -> list[tuple[str, torch.Tensor, torch.Tensor]]:
    """(metric, indices of its prompts (m,), values) of one suite; values (m, k), of a whole group (m, 1).

    Args:
        images: float (n, k, 3, H, W) in [0, 1], k images of each of n prompts.
    """
    n, k = images.shape[:2]

    def values_of(metric: str, kept: torch.Tensor) -> torch.Tensor:
        chosen = [prompts[i] for i in kept.repeat_interleave(k).tolist()]
        scores = rewards.get(metric)(images[kept].flatten(0, 1), [p["prompt"] for p in chosen], chosen)
        return scores.double().reshape(len(kept), k)

    kept = _within(prompts, suite["counts"])
    rows = [(metric, kept, values_of(metric, kept)) for metric in suite["metrics"]]
    for metric, bounds in suite["accuracy_by_count"].items():
        counted = _within(prompts, bounds)
        rows.append((metric, counted, values_of(suite["accuracy"], counted)))
    if k > 1:
        embedded = get_features(features)(images[kept].flatten(0, 1))
        diversity = group_diversity(embedded.reshape(len(kept), k, -1)).double()
        rows.append(("diversity", kept, diversity[:, None]))
    return rows


def _image_rows(step: int, suite: str, metric: str, prompts: torch.Tensor, values: torch.Tensor):
    """One row per value; the image of a value that belongs to the whole group is -1."""
    m, k = values.shape
    return pd.DataFrame(
        {
            "step": step,
            "suite": suite,
            "metric": metric,
            "prompt": prompts.repeat_interleave(k).numpy(),
            "image": torch.arange(k).repeat(m).numpy() if k > 1 else -1,
            "value": values.flatten().numpy(),
        }
    )


def score_run(folder: Path, images: Path, settings: Path, out: Path, out_images: Path) -> None:
    """Write the run's scores and those of its single images.

    ``out`` is tidy and holds what was measured at sampling and the costs as well; ``out_images`` has the
    columns step, suite, metric, prompt, image, value.
    """
    config, settings = load_run(folder), read_yaml(settings)
    roles = {**settings["roles"][config.task], "diversity": "diversity"}
    key = {name: getattr(config, name) for name in ("run", "base", "task", "method", "seed")}
    rows, single = [], []
    for path in sorted(images.glob("*.safetensors")):
        suite, step = path.stem.rsplit("_", 1)
        prompts = read_prompts(Path(settings["suites"][suite]["prompts"]))
        pixels = load_file(path)["images"].permute(0, 3, 1, 2).float() / 255
        k = settings["images_per_prompt"]
        pixels = pixels.unflatten(0, (len(prompts), k))
        scored = score_suite(pixels, prompts, settings["suites"][suite], settings["features"])
        for metric, kept, values in scored:
            cell = {"step": int(step), "suite": suite, "metric": metric, "role": roles.get(metric, "unseen")}
            rows.append({**key, **cell, "value": values.mean().item(), "n_images": len(kept) * k})
            single.append(_image_rows(int(step), suite, metric, kept, values))
    measured = pd.read_parquet(images / MEASURES)
    rows += [{**key, "suite": "model", "role": "cost", **m} for m in measured.to_dict("records")]
    provenance = json.loads((folder / "provenance.json").read_text())
    for metric, name in COSTS.items():
        cost = {"step": config.training.iterations, "suite": "training", "metric": metric, "role": "cost"}
        rows.append(
            {**key, **cost, "value": float(provenance[name]), "n_images": provenance["images_generated"]}
        )
    with replacing(out_images) as temporary:
        pd.concat(single, ignore_index=True).to_parquet(temporary, index=False)
    with replacing(out) as temporary:
        pd.DataFrame(rows, columns=COLUMNS).to_parquet(temporary, index=False)


def collect(folders: list[Path], out: Path, out_images: Path) -> None:
    """One table of all runs' scores, ordered by run, step, suite and metric, and one of their images."""
    table = pd.concat([pd.read_parquet(f / "scores.parquet") for f in folders], ignore_index=True)
    table = table.sort_values(["run", "step", "suite", "metric"], kind="stable").reset_index(drop=True)
    images = [pd.read_parquet(f / "image_scores.parquet").assign(run=f.name) for f in folders]
    columns = ["run", "step", "suite", "metric", "prompt", "image", "value"]
    with replacing(out_images) as temporary:
        pd.concat(images, ignore_index=True)[columns].to_parquet(temporary, index=False)
    with replacing(out) as temporary:
        table.to_parquet(temporary, index=False)
