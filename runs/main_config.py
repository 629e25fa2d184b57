"""The main config: which runs there are, and what is laid on the files that they name."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from core.settings import ConfigError, Name, Settings, parse, read_yaml

WHERE = "the main config (config/config.yaml and --configfile)"
LARGEST_SEED = 2**32 - 1


def _each_once(values: Sequence[Hashable]) -> Sequence[Hashable]:
    twice = [value for number, value in enumerate(values) if value in values[:number]]
    if twice:
        raise ValueError(f"{twice[0]!r} stands twice")
    return values


Seeds = Annotated[
    list[Annotated[int, Field(ge=0, le=LARGEST_SEED)]], Field(min_length=1), AfterValidator(_each_once)
]
Names = Annotated[list[Name], Field(min_length=1), AfterValidator(_each_once)]


class GridEntry(Settings):
    """Runs of several methods on one base model and task."""

    base: Name
    task: Name
    methods: Names
    seeds: Seeds | None = None
    training: dict[str, Any] = {}
    parameters: dict[str, Any] = {}


class MainConfig(Settings):
    """``config/config.yaml``, and what a preset lays on it."""

    seeds: Seeds
    snapshot_shares: list[Annotated[float, Field(gt=0, lt=1)]] = []
    data_per_prompt: int = Field(2, ge=1, le=10_000)
    gaussian_mixture: bool = False
    gaussian_mixture_map: bool = False
    stored_runs: str | None = None
    checked: list[str] = Field([], description="runs that `python -m checking` has scored, for the tables")
    training: dict[str, Any] = {}
    parameters: dict[str, Any] = {}
    evaluation: dict[str, Any] = {}
    tables: Names | None = Field(None, description="null: every table that the grid fills")
    grid: list[GridEntry] = Field(min_length=1)


def check_main(config: dict, files: Sequence[Path] = ()) -> dict:
    """``config`` with its defaults. Raises ``ConfigError`` for what is wrong in it.

    Args:
        files: what it was read from by somebody else, who may have overlooked that a key stands twice.
    """
    for path in files:
        read_yaml(Path(path))
    found = parse(MainConfig, config, WHERE).model_dump()
    for row in found["grid"]:
        row |= {"seeds": found["seeds"]} if row["seeds"] is None else {}
    if found["stored_runs"] is not None and not Path(found["stored_runs"]).is_dir():
        raise ConfigError(f"{WHERE}: key 'stored_runs' is {found['stored_runs']!r}; valid: a folder")
    return found
