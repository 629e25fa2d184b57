"""Every figure of a grid: what they are drawn from; the files of ``reporting/figures/`` draw them."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from core.files import replacing
from reporting import figures, trajectories
from reporting.figure_settings import FigureSettings, load_figures
from reporting.figure_style import NothingToDraw
from reporting.layout import CourseLayout, load_course, match
from reporting.results import Results

NOT_DRAWN = "not_drawn.txt"
Drawing = tuple[str, Callable[[Path], object]]  # name of the file, and what draws it at a stem


@dataclass(frozen=True)
class Grid:
    """What figures are drawn from."""

    results: Results

    @cached_property
    def sections(self) -> FigureSettings:
        """``config/figures.yaml``."""
        return load_figures()

    @cached_property
    def labels(self) -> dict[str, str]:
        """All methods, those of fewer curves first, so that these look most unlike each other."""
        labels = self.results.settings.methods
        first = [*self.sections.turn.methods, *self.sections.curves.methods]
        return {m: labels[m] for m in dict.fromkeys([*first, *labels]) if m in labels}

    @cached_property
    def references(self) -> dict[str, list[str]]:
        """Label -> methods of the grid without training that are drawn as one curve."""
        patterns = self.sections.references.curves.items()
        found = {label: match(names, self.results.settings.methods) for label, names in patterns}
        return {label: methods for label, methods in found.items() if methods}

    @cached_property
    def course(self) -> CourseLayout:
        return load_course()

    @cached_property
    def windows(self) -> pd.DataFrame:
        """Training histories as means over windows."""
        return trajectories.windowed(self.results.histories, self.course.windows)

    def shown(self, data: pd.DataFrame, section: str = "curves") -> pd.DataFrame:
        """Rows of the methods that a section of the settings names."""
        return data[data["method"].isin(getattr(self.sections, section).methods)]


def at(data: pd.DataFrame, base: str, task: str) -> pd.DataFrame:
    """Rows of a base model and task."""
    return data[(data["base"] == base) & (data["task"] == task)]


def drawings(grid: Grid) -> Iterator[Drawing]:
    """Those of every file in ``reporting/figures/``."""
    for module in pkgutil.iter_modules(figures.__path__):
        yield from importlib.import_module(f"{figures.__name__}.{module.name}").drawings(grid)


def render_figures(results: Results, out: Path) -> list[Path]:
    """Every figure as png and pdf; ``not_drawn.txt`` has a line for each one whose runs are absent."""
    absent = []
    with replacing(out) as temporary:
        temporary.mkdir()
        for name, draw in drawings(Grid(results)):
            try:
                draw(temporary / name)
            except NothingToDraw as reason:
                absent.append(f"{name}: {reason}")
        if absent:
            (temporary / NOT_DRAWN).write_text("\n".join(sorted(absent)) + "\n")
        names = sorted(path.name for path in temporary.iterdir())
    return [out / name for name in names]
