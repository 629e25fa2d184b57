"""Scores of single images, by run and prompt: what intervals resample and votes compare.

The table has the columns run, step, suite, metric, prompt, image, value; a value of a prompt's whole group
(its diversity) has the image -1.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

KEY = ["run", "step", "suite", "metric"]
ByPrompt = Mapping[tuple, np.ndarray]


def load(path: Path | None) -> pd.DataFrame | None:
    """The stored table, or None for no path."""
    return None if path is None else pd.read_parquet(path)


def by_prompt(images: pd.DataFrame | None) -> ByPrompt:
    """(run, step, suite, metric) -> means over the images of each prompt (P,), in their order."""
    if images is None:
        return {}
    means = images.groupby([*KEY, "prompt"], sort=True)["value"].mean().reset_index()
    starts = np.flatnonzero((means[KEY] != means[KEY].shift()).any(axis=1).to_numpy())
    keys = means.loc[starts, KEY].itertuples(index=False, name=None)
    return dict(zip(keys, np.split(means["value"].to_numpy(), starts[1:]), strict=True))


def by_seed(rows: pd.DataFrame, prompts: ByPrompt) -> dict[int, np.ndarray]:
    """Seed -> values by prompt (P,) of one method's rows of one metric, one per seed; () where prompts of any
    of the runs are unknown or differ in number."""
    keys = rows[KEY].itertuples(index=False, name=None)
    known = {seed: prompts.get(key) for seed, key in zip(rows["seed"], keys, strict=True)}
    if all(v is not None for v in known.values()) and len({len(v) for v in known.values()}) == 1:
        return known
    return {seed: np.asarray(value) for seed, value in zip(rows["seed"], rows["value"], strict=True)}
