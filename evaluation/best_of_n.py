"""Evaluation of a best-of-n row: the base model draws images, the proxy keeps the best, nothing is trained.

Of every prompt of the task's own suite k n images are drawn, k being the number that other rows are evaluated
on. Every metric's value is that expected of the image with the highest proxy of n, estimated without bias
from all of them (``methods.maths.best_of_n``). The best of each n in their order are k images as other rows
have them: they are shown, and their diversity is measured. Other suites have no proxy to choose by and are
left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from core.tables import write_table
from evaluation import images
from evaluation.configuration import RunEvaluation, SuiteConfig
from evaluation.sample import Sampler, write_sheet
from evaluation.score import ScoredFile, image_rows, score_files, training_costs
from evaluation.scores import COLUMNS, KL, MODEL, RUN
from methods.maths.best_of_n import best_of_n, best_of_n_kl
from runs.configuration import RunConfig


@dataclass
class BestOfN:
    """One row's evaluation; ``device`` runs the base model."""

    folder: Path
    config: RunConfig
    settings: RunEvaluation
    device: str

    def __post_init__(self):
        self.n, self.k, self.suite = self.config.best_of, self.settings.images_per_prompt, self.settings.own
        drawn = self.settings.model_copy(update={"images_per_prompt": self.k * self.n})
        self.sampler = Sampler(self.config, drawn, self.device)
        self.prompts = self.sampler.prompts[self.suite]
        self.out = self.folder / "images"
        self.candidates = self.out / "candidates.parquet"
        self.chosen = images.path_of(self.out, self.suite, 0)

    def draw(self) -> None:
        """Fill the file of candidates, unless it is there."""
        adapter = self.folder / "adapter"
        key = self.sampler.made_from(adapter, self.suite, self.config.seed, self.k * self.n)
        if images.made_from(self.candidates) != key:
            self.sampler.model.load_lora(adapter)
            pixels = self.sampler.images(self.suite)
            images.write(self.candidates, pixels, k=self.k * self.n, suite=self.suite, step=0, made_from=key)

    def file(self, path: Path, k: int, suite: SuiteConfig, name: str) -> ScoredFile:
        return ScoredFile(path, suite, name, 0, self.prompts, k)

    def score(self) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """By metric: indices of its prompts (m,) and their values (m, 1)."""
        suite, proxy = self.settings.suites[self.suite], self.config.task_settings.proxy
        everywhere = {"metrics": [proxy], "counts": None, "accuracy_by_count": {}}
        by_proxy = suite.model_copy(update=everywhere)
        files = [
            self.file(self.candidates, self.k * self.n, by_proxy, "proxy"),
            self.file(self.candidates, self.k * self.n, suite, self.suite),
        ]
        chosen_by, scored = score_files(files, {})
        reward = chosen_by[proxy][1]
        found = {
            metric: (kept, best_of_n(reward[kept], values, self.n)[:, None])
            for metric, (kept, values) in scored.items()
        }
        self.keep(reward)
        if self.k > 1:
            file = self.file(self.chosen, self.k, suite.model_copy(update={"metrics": [proxy]}), self.suite)
            encoders = self.settings.encoders()
            (best,) = score_files([file], encoders)
            found |= {metric: best[metric] for metric in encoders}
        return found

    def keep(self, reward: torch.Tensor) -> None:
        """Write the best image of each n candidates, by ``reward`` (P, k n)."""
        best = reward.unflatten(1, (self.k, self.n)).argmax(2) + torch.arange(self.k) * self.n
        rows = (best + torch.arange(len(best))[:, None] * self.k * self.n).flatten().numpy()
        images.write(
            self.chosen,
            images.stream(self.candidates, np.asarray(rows)),
            k=self.k,
            suite=self.suite,
            step=0,
            made_from=images.digest(self.candidates),
        )
        write_sheet(self.out, self.suite, self.prompts, 0, self.k)


def evaluate_best_of_n(
    folder: Path, config: RunConfig, settings: RunEvaluation, out: Path, out_images: Path, device: str
) -> None:
    """Write the row's scores and those of its prompts (``evaluation.scores`` has the columns)."""
    row = BestOfN(folder, config, settings, device)
    row.draw()
    key, rows, single = {name: getattr(config, name) for name in RUN}, [], []
    cell = {**key, "step": 0, "suite": row.suite, "own": True}
    file = row.file(row.candidates, row.k * row.n, settings.suites[row.suite], row.suite)
    for metric, (kept, values) in row.score().items():
        drawn = len(kept) * (row.k if metric in settings.encoders() else row.k * row.n)
        rows.append(
            {
                **cell,
                "metric": metric,
                "role": settings.role(metric),
                "value": file.overall(metric, kept, values),
                "n_images": drawn,
            }
        )
        single.append(image_rows(config.run, file, metric, kept, values))
    kl = {"suite": MODEL, "metric": KL, "value": best_of_n_kl(row.n), "n_images": len(row.prompts)}
    rows.append({**cell, **kl, "own": False, "role": "cost"})
    rows += [{**key, **cost} for cost in training_costs(folder, config)]
    write_table(pd.concat(single, ignore_index=True), out_images)
    write_table(pd.DataFrame(rows, columns=COLUMNS), out)
    if not settings.keep_images:
        row.chosen.unlink()
        row.candidates.unlink()
