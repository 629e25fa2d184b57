"""``config/gaussian_mixture.yaml``, checked before any job starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

import methods
from training.configuration import ConfigError, parse, read_yaml


class MixtureRow(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    label: str
    algorithm: str | None = Field(None, description="file in methods/; none measures the base model")
    parameters: dict[str, Any] = {}


class MixtureConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    seeds: list[int] = Field(min_length=1)
    rows: dict[str, MixtureRow]


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
        if kind(parameters, latent_dimensions=2).needs.process != "reverse":
            raise ConfigError(f"{path}: row {name!r}: {row.algorithm!r} does not train on denoising steps")
    return config
