"""``config/gaussian_mixture.yaml``, checked before any job starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

import methods
from core.settings import ConfigError, Name, Settings, parse, read_yaml


class MixtureRow(Settings):
    label: str
    algorithm: str | None = Field(None, description="file in methods/; none measures the base model")
    parameters: dict[str, Any] = {}
    optimised_reward: Literal["proxy", "shuffled"] = Field(
        "proxy", description="shuffled: permuted within each group, the negative control"
    )
    shape_by_rarity: Literal["advantages", "rewards"] | None = Field(
        None,
        description="by how rare the sample's true cluster is, instead of by features: positive advantages "
        "as GARDO's Eq. 8 does, or rewards, before the group's mean is subtracted",
    )


class Setting(Settings):
    """What a row is trained at."""

    learning_rate: float = Field(gt=0)
    iterations: int = Field(ge=1)
    measurements: int = Field(8, ge=1, description="evenly spaced over training, the last one at its end")
    reward_width: float = Field(gt=0, description="standard deviation of a reward bump; small is sharp")
    heights: Literal["graded", "equal"] = Field(description="of the reward bumps")
    features: Literal["coordinates", "coordinates_and_one", "fourier"] = Field(
        description="map of a point whose cosine distances shape the advantages"
    )
    group_size: int = Field(ge=2)
    samples: int = Field(256, ge=2, description="drawn per iteration, over all groups")

    @model_validator(mode="after")
    def _whole(self):
        if self.samples % self.group_size:
            raise ValueError(f"group_size {self.group_size} does not divide samples {self.samples}")
        if self.iterations % self.measurements:
            raise ValueError(f"measurements {self.measurements} does not divide iterations {self.iterations}")
        return self


class Training(Settings):
    """A learning rate and its longest training; shorter ones are read along the way."""

    learning_rate: float = Field(gt=0)
    iterations: int = Field(ge=1)
    samples: int = Field(256, ge=2)


class Shaping(Settings):
    """What a row with diversity features is trained with."""

    features: str
    group_size: int


class Landscape(Settings):
    """The reward's bumps."""

    heights: str
    reward_width: float


class Grid(Settings):
    """Every training x landscape; rows that look at features also x ``shapings``."""

    rows: list[str]
    trainings: list[Training] = Field(min_length=1)
    landscapes: list[Landscape] = Field(min_length=1)
    shapings: list[Shaping] = Field(min_length=1)


class MapConfig(Settings):
    seeds: list[int] = Field(min_length=1)
    lengths: list[float] = Field(min_length=1, description="shares of a training that are judged")
    grids: dict[Name, Grid]


class Checks(Settings):
    """What a setting must pass before anything is claimed of it; none looks at a row with diversity."""

    reward_row: str = Field(description="the row that must learn the reward")
    control_row: str = Field(description="the same row, rewards shuffled")
    least_rise: float = Field(gt=0, description="of its mean reward, as a share of what the base leaves open")
    most_fall: float = Field(gt=0, description="below its best mean reward")
    most_growth: float = Field(gt=0, description="of its mean reward over the last quarter")
    modes_at_half: int = Field(ge=1, description="still covered where half of the rise is reached")
    most_drift: float = Field(gt=0, description="of the control's mean reward, as a share of that rise")
    most_found_by_control: float = Field(
        ge=0, le=1, description="share of seeds in which the control covers the central cluster at the end"
    )


class MixtureConfig(Settings):
    seeds: list[int] = Field(min_length=1)
    setting: Setting
    checks: Checks
    map: MapConfig
    rows: dict[Name, MixtureRow]

    @model_validator(mode="after")
    def _named(self):
        pair = {"checks.reward_row": self.checks.reward_row, "checks.control_row": self.checks.control_row}
        named = list(pair.items())
        for name, grid in self.map.grids.items():
            named += [(f"map.grids.{name}.rows", row) for row in grid.rows]
            absent = sorted(set(pair.values()) - set(grid.rows))
            if absent:
                raise ValueError(f"map.grids.{name}.rows lacks {', '.join(absent)}, which the checks look at")
        for where, name in named:
            if name not in self.rows:
                raise ValueError(f"{where} names {name!r}; valid: {', '.join(self.rows)}")
        return self


def looks_at_features(row: MixtureRow) -> bool:
    """Whether the row's method wants diversity features."""
    if row.algorithm is None:
        return False
    return methods.get(row.algorithm).Config(**row.parameters).needs().features


def load(path: Path) -> MixtureConfig:
    """Raises ``ConfigError`` naming the file, the key and the valid values."""
    config = parse(MixtureConfig, read_yaml(path), str(path))
    for name, row in config.rows.items():
        if row.algorithm is None:
            continue
        try:
            kind = methods.get(row.algorithm)
        except ValueError as error:
            raise ConfigError(f"{path}: row {name!r}: {error}") from None
        where = f"{path}: row {name!r}, parameters"
        parameters = parse(kind.Config, row.parameters, where)
        if parameters.needs().process != "reverse":
            raise ConfigError(f"{path}: row {name!r}: {row.algorithm!r} does not train on denoising steps")
    for name, grid in config.map.grids.items():
        for values in _settings(config.setting, grid):
            parse(Setting, values, f"{path}: map.grids.{name}")
    return config


def _settings(default: Setting, grid: Grid) -> list[dict[str, Any]]:
    return [
        default.model_dump() | training.model_dump() | landscape.model_dump() | shaping.model_dump()
        for training in grid.trainings
        for landscape in grid.landscapes
        for shaping in grid.shapings
    ]


def settings_of(config: MixtureConfig, grid: Grid) -> list[Setting]:
    """All settings of a part of the map."""
    return [Setting(**values) for values in _settings(config.setting, grid)]


def jobs_of_map(config: MixtureConfig) -> list[tuple[str, float, int]]:
    """Name of the grid, learning rate and seed of every job."""
    return [
        (name, rate, seed)
        for name, grid in config.map.grids.items()
        for rate in dict.fromkeys(training.learning_rate for training in grid.trainings)
        for seed in config.map.seeds
    ]
