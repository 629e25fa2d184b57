"""``config/instrument.yaml``: the rows that serve as controls, the thresholds and what a claim needs."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveFloat

from core.settings import Settings, parse, read_yaml

INSTRUMENT = Path("config/instrument.yaml")


class Rows(Settings):
    """Methods by their part in the checks."""

    untrained: str
    kl_free: str
    shuffled: str
    oracle: str
    gate: str
    random_gate: str


class Changes(Settings):
    """A size for each quantity: in its own units, ``unseen`` in the untrained model's spread over prompts."""

    proxy: PositiveFloat
    gold: PositiveFloat
    unseen: PositiveFloat


class Plateau(Settings):
    fallen: PositiveFloat = Field(description="best window minus the last")
    rising: PositiveFloat = Field(description="last window minus the one two before")


class Oracle(Settings):
    gold: PositiveFloat = Field(description="least gain over the untrained model")


class Exploit(Settings):
    base_rate: float = Field(ge=0, le=1)
    learnt: float | None = Field(gt=0, le=1, description="none: reported without a pass mark")


class Thresholds(Settings):
    negative_control: Changes
    plateau: Plateau
    oracle: Oracle
    exploit: Exploit
    resolution: Changes


class Required(Settings):
    """Checks without which no claim is judged."""

    negative_control: Literal["measured", "passes"] | None = None
    plateau: Literal["measured", "passes"] | None = None
    oracle: Literal["measured", "passes"] | None = None
    resolution: Literal["measured", "passes"] | None = None


class InstrumentConfig(Settings):
    level: float = Field(gt=0, lt=1, description="of the intervals")
    windows: int = Field(ge=3, description="means that a training history is read as")
    seeds: int = Field(ge=1, description="least number for a verdict")
    rows: Rows
    other_controls: list[str] = Field([], description="methods that no check reads and no pattern means")
    required: Required
    thresholds: Thresholds
    tasks: dict[str, dict[str, Any]] = Field({}, description="by name or pattern, laid over the rest")

    @property
    def controls(self) -> list[str]:
        """Methods that no pattern of a claim means."""
        return [self.rows.shuffled, self.rows.oracle, self.rows.random_gate, *self.other_controls]

    def of(self, task: str) -> Thresholds:
        """The thresholds of a task."""
        return self._laid_over(task, "thresholds")

    def _laid_over(self, task: str, where: str) -> Thresholds:
        merged: dict[str, Any] = self.thresholds.model_dump()
        own = [values for name, values in self.tasks.items() if name == task or fnmatchcase(task, name)]
        for check, values in (item for checks in own for item in checks.items()):
            known = merged.get(check)
            merged[check] = {**known, **values} if known and isinstance(values, dict) else values
        return parse(Thresholds, merged, where)


def load(path: Path) -> InstrumentConfig:
    """Raises ``ConfigError`` naming file and key."""
    config = parse(InstrumentConfig, read_yaml(path), str(path))
    for task in config.tasks:
        config._laid_over(task, f"{path}: tasks.{task}")
    return config
