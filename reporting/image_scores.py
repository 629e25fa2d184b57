"""Scores of single images, by run and prompt: what intervals resample and votes compare.

The table has the columns run, step, suite, metric, prompt, image, value; a value of a prompt's whole group
(its diversity) has the image -1.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

KEY = ["run", "step", "suite", "metric"]


class Images(NamedTuple):
    """One metric of one step of a run: indices of the prompts (P,) and values (P, k), k images of each."""

    prompts: np.ndarray
    values: np.ndarray


ByImage = Mapping[tuple, Images]


def load(path: Path | None) -> ByImage:
    """(run, step, suite, metric) -> its images; empty for no path."""
    return {} if path is None else by_image(pd.read_parquet(path))


def by_image(images: pd.DataFrame) -> ByImage:
    """``load`` for a table. Every prompt of a cell must have the same number of images."""
    if images.empty:
        return {}
    images = images.sort_values([*KEY, "prompt", "image"], kind="stable")
    cells = images.groupby(KEY, sort=False)
    sizes, prompts = cells.size(), cells["prompt"].nunique()
    uneven = sizes[sizes % prompts != 0]
    if len(uneven):
        raise ValueError(f"prompts differ in their number of images; first: {uneven.index[0]}")
    ends = np.cumsum(sizes.to_numpy())[:-1]
    values = np.split(images["value"].to_numpy(np.float64), ends)
    indices = np.split(images["prompt"].to_numpy(), ends)
    found = {}
    for key, count, index, value in zip(sizes.index, prompts, indices, values, strict=True):
        value = value.reshape(count, -1)
        found[key] = Images(index.reshape(value.shape)[:, 0], value)
    return found


def by_seed(rows: pd.DataFrame, images: ByImage) -> dict[int, np.ndarray]:
    """Seed -> means by prompt (P,) of one method's rows of one metric, one per seed.

    Where prompts of any of the runs are unknown or differ in number: seed -> value ().
    """
    keys = rows[KEY].itertuples(index=False, name=None)
    known = {seed: images.get(key) for seed, key in zip(rows["seed"], keys, strict=True)}
    if all(v is not None for v in known.values()) and len({len(v.prompts) for v in known.values()}) == 1:
        return {seed: v.values.mean(axis=1) for seed, v in known.items()}
    return {seed: np.asarray(value) for seed, value in zip(rows["seed"], rows["value"], strict=True)}
