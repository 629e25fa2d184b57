"""Tidy scores of a run's evaluation images, one by one and in the mean, and of its cost."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import rewards
from core.media import to_media
from core.prompts import count_objects
from core.prompts import read as read_prompts
from core.tables import write_table
from evaluation import images
from evaluation.configuration import RunEvaluation, SuiteConfig
from evaluation.sample import measures_file, planned
from evaluation.scores import COLUMNS, COSTS, IMAGE_COLUMNS, MODEL, RUN, TRAINING
from methods.maths.diversity import group_diversity
from rewards.features import get_features
from runs.configuration import RunConfig

CHUNK_BYTES = 2**28  # of images that a reward is given at a time
KEPT_BYTES = 2**26  # of a file's images that are kept between rewards; larger ones are read for each
Scored = dict[str, tuple[torch.Tensor, torch.Tensor]]


def _within(prompts: list[dict], bounds: tuple[int, int] | None) -> torch.Tensor:
    """Indices of the prompts whose number of objects lies in the inclusive range."""
    kept = [i for i, p in enumerate(prompts) if bounds is None or bounds[0] <= count_objects(p) <= bounds[1]]
    return torch.tensor(kept, dtype=torch.long)


@dataclass(frozen=True)
class ScoredFile:
    """Evaluation images of one suite at one step: k of each of n prompts."""

    path: Path
    suite: SuiteConfig
    name: str
    step: int
    prompts: list[dict]
    k: int

    @cached_property
    def digest(self) -> tuple[str, str]:
        """Equal for files that every reward scores alike."""
        return self.name, images.digest(self.path)

    @cached_property
    def _kept(self) -> np.ndarray | None:
        """All pixels uint8 (n * k, ..., H, W, 3), where they are few enough to be kept."""
        first = next(images.stream(self.path))
        if first.nbytes * len(self.prompts) * self.k > KEPT_BYTES:
            return None
        return np.stack(list(images.stream(self.path)))

    def read(self, prompts: torch.Tensor) -> Iterator[tuple[torch.Tensor, list[dict]]]:
        """Media of these prompts (m,), float (c, ..., 3, H, W) in [0, 1], with the prompt of each; as many at
        a time as a suite of photographs leaves memory for."""
        rows = (prompts[:, None] * self.k + torch.arange(self.k)).flatten()
        pixels = images.stream(self.path, rows.numpy()) if self._kept is None else iter(self._kept[rows])
        image = next(images.stream(self.path)) if self._kept is None else self._kept[0]
        for chunk in rows.split(max(1, CHUNK_BYTES // (4 * image.size))):
            media = to_media(np.stack([next(pixels) for _ in chunk]))
            yield media, [self.prompts[i] for i in (chunk // self.k).tolist()]

    def metrics(self) -> list[tuple[str, str, tuple[int, int] | None]]:
        """(metric, the reward that measures it, inclusive range of object counts or None for all)."""
        found = [(metric, metric, self.suite.counts) for metric in self.suite.metrics]
        counted = self.suite.accuracy_by_count.items()
        return found + [(metric, self.suite.accuracy, bounds) for metric, bounds in counted]

    def weights(self, metric: str, prompts: torch.Tensor) -> torch.Tensor:
        """Float (m,): what these prompts weigh in the metric's one number, 1 in the mean."""
        reward = {name: by for name, by, _ in self.metrics()}.get(metric)
        if reward is None:
            return torch.ones(len(prompts), dtype=torch.float64)
        metadata = [self.prompts[i] for i in prompts.tolist()]
        return rewards.get_class(reward).prompt_weights(metadata).double()

    def overall(self, metric: str, prompts: torch.Tensor, values: torch.Tensor) -> float:
        """The metric's one number, of values (m, k)."""
        return (values * self.weights(metric, prompts)[:, None]).mean().item()


def score_files(files: list[ScoredFile], encoders: Mapping[str, str]) -> list[Scored]:
    """For each file, by metric: indices of its prompts (m,) and values (m, k), or (m, 1) of a whole group.

    ``encoders``: metric of diversity -> the encoder it is measured in, for files of several images a prompt.
    Every reward is opened once and closed before the next: some take minutes and gigabytes. Files of equal
    images are scored once.
    """
    different = {file.digest: file for file in reversed(files)}
    scored: dict[tuple, Scored] = {
        digest: dict.fromkeys(metric for metric, _, _ in file.metrics()) for digest, file in different.items()
    }
    for name in dict.fromkeys(reward for file in files for _, reward, _ in file.metrics()):
        reward = rewards.get(name)
        for digest, file in different.items():
            wanted = [(metric, bounds) for metric, by, bounds in file.metrics() if by == name]
            for metric, bounds in wanted:
                kept = _within(file.prompts, bounds)
                parts = [reward(pixels, [p["prompt"] for p in of], of) for pixels, of in file.read(kept)]
                scored[digest][metric] = kept, torch.cat(parts).double().reshape(len(kept), file.k)
        del reward
    for metric, name in encoders.items() if any(file.k > 1 for file in files) else ():
        encoder = get_features(name)
        for digest, file in different.items():
            kept = _within(file.prompts, file.suite.counts)
            embedded = torch.cat([encoder(pixels) for pixels, _ in file.read(kept)])
            grouped = embedded.reshape(len(kept), file.k, -1)
            scored[digest][metric] = kept, group_diversity(grouped).double()[:, None]
        del encoder
    return [scored[file.digest] for file in files]


def image_rows(run: str, file: ScoredFile, metric: str, prompts: torch.Tensor, values: torch.Tensor):
    """One row per value; the image of a value that belongs to the whole group is -1."""
    m, k = values.shape
    weights = file.weights(metric, prompts)
    columns = {
        "run": run,
        "step": file.step,
        "suite": file.name,
        "metric": metric,
        "prompt": prompts.repeat_interleave(k).numpy(),
        "image": torch.arange(k).repeat(m).numpy() if k > 1 else -1,
        "value": values.flatten().numpy(),
        "weight": weights.repeat_interleave(k).numpy(),
    }
    return pd.DataFrame(columns, columns=IMAGE_COLUMNS)


def _cost_rows(folder: Path, config: RunConfig, settings: RunEvaluation) -> list[dict]:
    """What the adapters cost the base model at each evaluated step, and what training took."""
    rows = []
    for step in (step for step, suite in planned(config, settings) if suite == settings.own):
        stored = json.loads(measures_file(folder / "images", step).read_text())
        n = len(read_prompts(Path(settings.suites[settings.own].prompts)))
        for metric, value in stored["measured"].items():
            rows.append({"step": step, "suite": MODEL, "metric": metric, "value": value, "n_images": n})
    return [{**row, "own": False, "role": "cost"} for row in rows] + training_costs(folder, config)


def training_costs(folder: Path, config: RunConfig) -> list[dict]:
    """What training took."""
    provenance = json.loads((folder / "provenance.json").read_text())
    cell = {"step": config.training.iterations, "suite": TRAINING, "own": False, "role": "cost"}
    cell["n_images"] = provenance.get("images_generated", 0)
    known = {metric: name for metric, name in COSTS.items() if name in provenance}  # not what others trained
    return [{**cell, "metric": metric, "value": float(provenance[name])} for metric, name in known.items()]


def score_run(folder: Path, config: RunConfig, settings: RunEvaluation, out: Path, out_images: Path) -> None:
    """Write the run's scores and those of its single images (``evaluation.scores`` has the columns).

    Raises:
        ImageFileError: a file of images is missing or damaged.
    """
    key = {name: getattr(config, name) for name in RUN}
    prompts = {name: read_prompts(Path(suite.prompts)) for name, suite in settings.suites.items()}
    files = [
        ScoredFile(
            images.path_of(folder / "images", name, step),
            settings.suites[name],
            name,
            step,
            prompts[name],
            settings.images_per_prompt,
        )
        for step, name in sorted(planned(config, settings), key=lambda planned: planned[::-1])
    ]
    rows, single = [], []
    for file, scored in zip(files, score_files(files, settings.encoders()), strict=True):
        cell = {"step": file.step, "suite": file.name, "own": file.name == settings.own}
        for metric, (kept, values) in scored.items():
            value = {"value": file.overall(metric, kept, values), "n_images": len(kept) * file.k}
            rows.append({**key, **cell, "metric": metric, "role": settings.role(metric), **value})
            single.append(image_rows(config.run, file, metric, kept, values))
    rows += [{**key, **row} for row in _cost_rows(folder, config, settings)]
    write_table(pd.concat(single, ignore_index=True), out_images)
    write_table(pd.DataFrame(rows, columns=COLUMNS), out)
