"""The map: rows of the mixture at every setting of a grid; one job per grid, learning rate and seed."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from didactic import policy
from didactic.configuration import MixtureConfig, MixtureRow, Setting, looks_at_features, settings_of
from didactic.experiment import run

AXES = ["learning_rate", "samples", "reward_width", "heights", "features", "group_size"]
ANY = "any"  # the features of a row that looks at none


def planned(
    config: MixtureConfig, name: str, learning_rate: float
) -> Iterator[tuple[str, MixtureRow, Setting]]:
    """Rows and settings that one job trains; a row that looks at no features once per landscape.

    Raises:
        ValueError: the configuration has no such grid, or the grid no such learning rate.
    """
    if name not in config.map.grids:
        raise ValueError(f"unknown grid {name!r}; valid: {', '.join(config.map.grids)}")
    grid = config.map.grids[name]
    rates = [training.learning_rate for training in grid.trainings]
    if learning_rate not in rates:
        raise ValueError(f"grid {name!r} has no learning rate {learning_rate}; valid: {rates}")
    first = grid.shapings[0]
    for method in grid.rows:
        row = config.rows[method]
        for setting in settings_of(config, grid):
            alone = (setting.features, setting.group_size) == (first.features, first.group_size)
            if setting.learning_rate == learning_rate and (alone or looks_at_features(row)):
                yield method, row, setting


def train(config: MixtureConfig, name: str, learning_rate: float, seed: int) -> pd.DataFrame:
    """Scores of all runs of a job.

    Columns: grid, method, seed, the ``AXES``, length (share of the training), step, measure, value.
    """
    base, parts = policy.pretrain(seed), []
    for method, row, setting in planned(config, name, learning_rate):
        axes = {axis: getattr(setting, axis) for axis in AXES}
        if not looks_at_features(row):
            axes["features"] = ANY
        scores = run(base, row, setting, seed).scores
        parts.append(
            scores.assign(
                grid=name, method=method, seed=seed, **axes, length=scores["step"] / setting.iterations
            )
        )
    columns = ["grid", "method", "seed", *AXES, "length", "step", "measure", "value"]
    return pd.concat(parts, ignore_index=True)[columns]
