"""Tidy scores of a run's evaluation images, one by one and in the mean, and of its cost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from safetensors import safe_open

import rewards
from evaluation.sample import MEASURES
from methods.maths.diversity import group_diversity
from rewards.features import get_features
from scenes.prompts import read as read_prompts
from training.configuration import load_run, read_yaml
from training.files import replacing

COLUMNS = ["run", "base", "task", "method", "seed", "step", "suite", "metric", "role", "value", "n_images"]
CHUNK_BYTES = 2**28  # of images that a reward is given at a time
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


@dataclass(frozen=True)
class ImageFile:
    """Evaluation images of one suite at one step: k of each of n prompts."""

    path: Path
    suite: dict  # the suite's settings
    name: str
    step: int
    prompts: list[dict]
    k: int

    def read(self, prompts: torch.Tensor) -> Iterator[tuple[torch.Tensor, list[dict]]]:
        """Images of these prompts (m,), float (c, 3, H, W) in [0, 1], with the prompt of each; as many at a
        time as a suite of photographs leaves memory for."""
        with safe_open(self.path, "pt") as stream:
            pixels = stream.get_tensor("images")
        rows = (prompts[:, None] * self.k + torch.arange(self.k)).flatten()
        size = max(1, CHUNK_BYTES // (4 * pixels[0].numel()))
        for chunk in rows.split(size):
            images = pixels[chunk].permute(0, 3, 1, 2).float() / 255
            yield images, [self.prompts[i] for i in (chunk // self.k).tolist()]

    def metrics(self) -> list[tuple[str, str, list[int] | None]]:
        """(metric, the reward that measures it, inclusive range of object counts or None for all)."""
        found = [(metric, metric, self.suite["counts"]) for metric in self.suite["metrics"]]
        counted = self.suite["accuracy_by_count"].items()
        return found + [(metric, self.suite["accuracy"], bounds) for metric, bounds in counted]


def score_files(files: list[ImageFile], features: str) -> list[dict[str, tuple[torch.Tensor, torch.Tensor]]]:
    """For each file, by metric: indices of its prompts (m,) and values (m, k), or (m, 1) of a whole group.

    Every reward is opened once and closed before the next: some take minutes and gigabytes.
    """
    scored = [dict.fromkeys(metric for metric, _, _ in file.metrics()) for file in files]
    for name in dict.fromkeys(reward for file in files for _, reward, _ in file.metrics()):
        reward = rewards.get(name)
        for file, results in zip(files, scored, strict=True):
            wanted = [(metric, bounds) for metric, by, bounds in file.metrics() if by == name]
            for metric, bounds in wanted:
                kept = _within(file.prompts, bounds)
                parts = [reward(images, [p["prompt"] for p in of], of) for images, of in file.read(kept)]
                results[metric] = kept, torch.cat(parts).double().reshape(len(kept), file.k)
        del reward
    if any(file.k > 1 for file in files):
        encoder = get_features(features)
        for file, results in zip(files, scored, strict=True):
            kept = _within(file.prompts, file.suite["counts"])
            embedded = torch.cat([encoder(images) for images, _ in file.read(kept)])
            grouped = embedded.reshape(len(kept), file.k, -1)
            results["diversity"] = kept, group_diversity(grouped).double()[:, None]
    return scored


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
    roles = {**settings["roles"], "diversity": "diversity"}
    key = {name: getattr(config, name) for name in ("run", "base", "task", "method", "seed")}
    files = []
    for path in sorted(images.glob("*.safetensors")):
        name, step = path.stem.rsplit("_", 1)
        suite = settings["suites"][name]
        prompts = read_prompts(Path(suite["prompts"]))
        files.append(ImageFile(path, suite, name, int(step), prompts, settings["images_per_prompt"]))
    rows, single = [], []
    for file, scored in zip(files, score_files(files, settings["features"]), strict=True):
        for metric, (kept, values) in scored.items():
            cell = {
                "step": file.step,
                "suite": file.name,
                "metric": metric,
                "role": roles.get(metric, "unseen"),
            }
            rows.append({**key, **cell, "value": values.mean().item(), "n_images": len(kept) * file.k})
            single.append(_image_rows(file.step, file.name, metric, kept, values))
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
