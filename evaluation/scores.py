"""Scores: what the tables hold that evaluation writes and everything rendered is read from.

A tidy table has one value per run, step, suite and metric; beside it stands one of single images. Names of
columns, roles and metrics that are no reward are declared here and nowhere else. Importing it opens nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from core.tables import read_table
from methods.maths.diversity import DIVERSITY

RUN = ["run", "base", "task", "method", "seed"]
# ``own``: whether the suite is the task's own. What belongs to no suite of images has MODEL or TRAINING.
COLUMNS = [*RUN, "step", "suite", "own", "metric", "role", "value", "n_images"]
CELL = ["base", "task", "method", "step", "suite", "metric"]  # with the seed: one value
IMAGE_KEY = ["run", "step", "suite", "metric"]
# image: -1 where the value is of the prompt's group. weight: of the prompt in the run's one value.
IMAGE_COLUMNS = [*IMAGE_KEY, "prompt", "image", "value", "weight"]
BY_KIND = "diversity_kind"  # role of diversity_colour and its like: parts of what DIVERSITY measures
ROLES = ("proxy", "auxiliary", "unseen", "gold", DIVERSITY, BY_KIND, "cost")
MODEL, TRAINING = "model", "training"
KL, DIFFUSION_LOSS = "kl_from_base", "diffusion_loss"
COSTS = {  # metric -> what provenance.json calls it
    "train_wall_seconds": "wall_seconds",
    "train_cpu_seconds": "cpu_seconds",
    "train_device_seconds": "device_seconds",
    "peak_memory_mb": "peak_memory_mb",
    "images_generated": "images_generated",
    "reward_calls": "reward_calls",
    "gradient_steps": "gradient_steps",
}


class Images(NamedTuple):
    """One metric of one step of a run: indices of the prompts (P,), values (P, k), k images of each, and
    weights (P,), 1 in the mean."""

    prompts: np.ndarray
    values: np.ndarray
    weights: np.ndarray | float = 1.0


ByImage = Mapping[tuple, Images]  # by IMAGE_KEY
BySeed = dict[int, np.ndarray]  # seed -> means by prompt (P,), or the run's value ()


@dataclass(frozen=True)
class Scores:
    """Rows of a tidy table, and the single images behind them where these are known."""

    table: pd.DataFrame
    images: ByImage = field(default_factory=dict)

    def last(self) -> Scores:
        return Scores(last_step(self.table), self.images)

    def of(self, **equal) -> Scores:
        """The rows with these values, such as ``base="tiny-sd3", metric="gold"``."""
        table = self.table
        for column, value in equal.items():
            table = table[table[column] == value]
        return Scores(table, self.images)

    def in_suite(self, suite: str) -> Scores:
        """The rows of a suite; ``own`` stands for each task's."""
        return self.of(own=True) if suite == "own" else self.of(suite=suite)

    def values(self, metric: str, *, scale: float = 1.0, over: float = 1.0, per: str | None = None) -> BySeed:
        """One method's values of a metric by seed, each by prompt: what every number shown is made from.

        The rows are those of one method, suite and step of each run. Where the prompts of any of the runs are
        unknown or differ in number, a seed has its one value. ``scale`` multiplies, ``over`` divides, and so
        does the run's value of the metric ``per``; runs where that is zero or absent are left out.
        """
        rows = self.table[self.table["metric"] == metric]
        found = by_seed(rows, self.images)
        if per is not None:
            divisors = self.table[self.table["metric"] == per].set_index("seed")["value"]
            divisors = divisors[divisors != 0]
            found = {seed: v for seed, v in found.items() if seed in divisors.index}
        return {
            seed: value * scale / over / (1.0 if per is None else divisors[seed])
            for seed, value in found.items()
        }


def by_seed(rows: pd.DataFrame, images: ByImage) -> BySeed:
    """``Scores.values`` of rows of one method and metric, one per seed, in the metric's own units."""
    keys = rows[IMAGE_KEY].itertuples(index=False, name=None)
    known = {seed: images.get(key) for seed, key in zip(rows["seed"], keys, strict=True)}
    if all(v is not None for v in known.values()) and len({len(v.prompts) for v in known.values()}) == 1:
        return {seed: v.values.mean(axis=1) * v.weights for seed, v in known.items()}
    return {seed: np.asarray(value) for seed, value in zip(rows["seed"], rows["value"], strict=True)}


def weighted(images: pd.DataFrame) -> pd.DataFrame:
    """A table of single images, with the weights of 1 that it had when it was stored without any."""
    known = images["weight"] if "weight" in images else pd.Series(float("nan"), index=images.index)
    return images.assign(weight=known.fillna(1.0))[IMAGE_COLUMNS]


def by_image(images: pd.DataFrame) -> ByImage:
    """(run, step, suite, metric) -> its images. All prompts of a cell must have as many images."""
    if images.empty:
        return {}
    images = weighted(images).sort_values([*IMAGE_KEY, "prompt", "image"], kind="stable")
    cells = images.groupby(IMAGE_KEY, sort=False)
    sizes, prompts = cells.size(), cells["prompt"].nunique()
    uneven = sizes[sizes % prompts != 0]
    if len(uneven):
        raise ValueError(f"prompts differ in their number of images; first: {uneven.index[0]}")
    ends = np.cumsum(sizes.to_numpy())[:-1]
    columns = [np.split(images[name].to_numpy(), ends) for name in ("prompt", "value", "weight")]
    found = {}
    for key, count, *column in zip(sizes.index, prompts, *columns, strict=True):
        index, value, weight = (part.reshape(count, -1) for part in column)
        found[key] = Images(index[:, 0], value.astype(np.float64), weight[:, 0])
    return found


def load(path: Path, images: Path | None = None, own_suites: Mapping[str, str] | None = None) -> Scores:
    """A stored table and, where the path is given, its single images.

    ``own_suites``: task -> suite, for tables that were stored before they said which suite is the task's own.
    """
    table = read_table(path)
    own = table["suite"] == table["task"].map(own_suites or {})
    if "own" in table:
        own = table["own"].where(table["own"].notna(), own).astype(bool)
    return Scores(table.assign(own=own), {} if images is None else by_image(read_table(images)))


def last_step(scores: pd.DataFrame) -> pd.DataFrame:
    """The rows of each run's last evaluated step; its cost rows are stamped apart and kept apart."""
    is_cost = (scores["role"] == "cost").rename("is_cost")
    return scores[scores["step"] == scores.groupby(["run", is_cost])["step"].transform("max")]


def check_scores(scores: pd.DataFrame) -> None:
    """Raise a ValueError that names the first fault of a scores table: columns, roles, NaN, duplicates."""
    missing = [c for c in COLUMNS if c not in scores.columns]
    if missing:
        raise ValueError(f"scores lack the columns {missing}; expected {COLUMNS}")
    unknown = sorted(set(scores["role"]) - set(ROLES))
    if unknown:
        raise ValueError(f"unknown roles {unknown}; valid: {', '.join(ROLES)}")
    # A failed metric must not leave the mean silently, and one counted twice must not weigh double.
    faults = {
        "not finite": ~np.isfinite(scores["value"].astype(float)),
        "given more than once": scores.duplicated([*CELL, "seed"], keep=False),
    }
    for fault, mask in faults.items():
        if mask.any():
            row = scores[mask].iloc[0]
            raise ValueError(
                f"{int(mask.sum())} scores are {fault}; first: run {row['run']}, step {row['step']}, "
                f"suite {row['suite']}, metric {row['metric']}"
            )
