"""``config/figures.yaml``: what the figures show. Read before the first job, so it draws nothing."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from core.settings import Settings, parse, read_yaml

FIGURES = Path("config/figures.yaml")


class Shown(Settings):
    """What most sections hold."""

    methods: list[str] = Field(min_length=1)


class MultiReward(Shown):
    """GARDO Fig. 8b: ``subject`` and what it is compared with."""

    subject: str


class SampleGrid(Shown):
    prompts: int = Field(ge=1)
    images_per_method: int = Field(ge=1)


class SampleSteps(Shown):
    """The first method is where all start."""

    prompts: int = Field(ge=1)


class Uncertain(Shown):
    images: int = Field(ge=1)


class References(Settings):
    """Curves of what needs no training: label -> patterns of its methods."""

    curves: dict[str, list[str]] = {}


class FigureSettings(Settings):
    """A key for each section."""

    turn: Shown
    curves: Shown
    multi_reward: MultiReward
    sample_grid: SampleGrid
    sample_steps: SampleSteps
    uncertain: Uncertain
    references: References = References()
    baselines: Shown

    def named(self) -> dict[str, list[str]]:
        """Methods, or patterns of them, by the key that names them."""
        found = {f"{key}.methods": getattr(self, key).methods for key in FIGURE_SECTIONS}
        found["multi_reward.subject"] = [self.multi_reward.subject]
        return found | {
            f"references.curves.{label}": names for label, names in self.references.curves.items()
        }


FIGURE_SECTIONS = [key for key in FigureSettings.model_fields if key != "references"]


def load_figures(path: Path = FIGURES) -> FigureSettings:
    """Raises ``ConfigError`` naming file and key."""
    return parse(FigureSettings, read_yaml(path), str(path))
