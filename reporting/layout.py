"""What tables hold, as data: tables.yaml, trajectories.yaml and published.yaml in ``config/``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from core.settings import Name, Settings, parse, read_yaml
from evaluation.scores import ROLES

TABLES, COURSE, PUBLISHED = (Path(f"config/{name}.yaml") for name in ("tables", "trajectories", "published"))


def match(patterns: Sequence[str], names: Iterable[str]) -> list[str]:
    """Names chosen by patterns, each once: ``*`` expands in the order of ``names``, ``!p`` takes p out."""
    names, chosen = list(names), []
    for pattern in patterns:
        if pattern.startswith("!"):
            chosen = [n for n in chosen if not fnmatchcase(n, pattern[1:])]
        else:
            chosen += [n for n in names if fnmatchcase(n, pattern) and n not in chosen]
    return chosen


class Role(Settings):
    mark: str = Field(description="behind a column's header")
    legend: str | None = None


class _Column(Settings):
    header: str
    digits: int = Field(ge=0)
    better: Literal["higher", "lower", "neither"]
    scale: float = Field(1.0, description="what values are multiplied by")

    @property
    def arrow(self) -> str:
        return {"higher": " ↑", "lower": " ↓", "neither": ""}[self.better]


class Column(_Column):
    metric: str
    suite: str = Field(description="own: that of the block's task")
    over: float = Field(1.0, gt=0, description="what values are divided by")
    per: str | None = Field(None, description="another metric of the same run, to divide by")
    relative_to: str | None = Field(None, description="a method, to divide by its mean over seeds")
    optional: bool = Field(False, description="left out where no row of the whole table has it")
    published: str | None = Field(None, description="column of published.yaml that plays the same part")


class _Table(Settings):
    title: str
    bases: Literal["first", "others", "all"] | list[str]
    tasks: list[str]
    methods: list[str] = Field(description="names in order, or patterns, which take the grid's order")
    subject: list[str] | None = Field(None, description="methods without which a block is left out")
    columns: list[str]

    def chosen_bases(self, bases: Sequence[str]) -> list[str]:
        """The base models of the table; ``bases``: the grid's in order."""
        groups = {"first": bases[:1], "others": bases[1:], "all": bases}
        return list(groups[self.bases]) if isinstance(self.bases, str) else self.bases

    def chosen_methods(self, methods: Iterable[str], base_method: str) -> tuple[list[str], set[str]]:
        """The table's methods in its order, and those among them without which a block is left out."""
        chosen = sorted(match(self.methods, methods), key=lambda m: m != base_method)  # only the base moves
        return chosen, set(match(self.subject or ["*"], chosen)) - {base_method}


class Table(_Table):
    note: str | None = Field(None, description="a sentence of the caption")
    published: list[str] = Field([], description="of published.yaml, the first that has a row counts")
    about: list[str] = Field([], description="columns: without any of them the table is left out")
    short: bool = Field(False, description="half the interval after ± instead of its ends; no steps")


class RunCosts(Settings):
    """The table of each run's cost: name in the .csv -> column."""

    title: str
    columns: dict[str, str]


class Layout(Settings):
    """config/tables.yaml."""

    base_method: str
    controls: list[str] = []
    baseline: str = Field("", description="of the comparison over all tasks")
    tasks: dict[str, str] = Field(description="how a title names a task")
    roles: dict[str, Role]
    columns: dict[str, Column]
    tables: dict[Name, Table]
    cost_runs: RunCosts | None = None

    @model_validator(mode="after")
    def _whole(self):
        if set(self.roles) != set(ROLES):
            raise ValueError(f"roles are {', '.join(self.roles)}; valid: {', '.join(ROLES)}")
        _check_columns(self.tables, self.columns)
        return self

    def mark(self, role: str | None) -> str:
        return self.roles[role].mark if role else ""

    def legend(self, roles: Iterable[str]) -> list[str]:
        """What the roles' marks mean, in the roles' order."""
        here = set(roles)
        return [r.legend for name in ROLES if name in here and (r := self.roles[name]).legend]

    def title(self, base: str, task: str) -> str:
        """Of a block."""
        return f"{base}, trained on {self.tasks.get(task, task)}"

    def contends(self, method: str) -> bool:
        """Whether a method can be the best: the untrained model and controls are there to compare with."""
        return method not in (self.base_method, *self.controls)


class CourseColumn(_Column):
    metric: str | None = Field(None, description="name in the histories; none: a number of the table's own")


class Levels(Settings):
    methods: list[str]
    common: list[float] = Field(description="shares of the way to the level that all of these reach")
    beyond: list[float] = Field(description="shares of the way from there to the highest")
    digits: int


class CourseTable(_Table):
    kind: Literal["matched", "turn", "selection"]
    caption: list[str]
    start: str = Field("", description="label of where all methods start")
    levels: Levels | None = None
    selections: dict[str, str] = {}


class CourseLayout(Settings):
    """config/trajectories.yaml."""

    windows: int = Field(ge=1)
    control: str
    caption: str
    columns: dict[str, CourseColumn]
    tables: dict[Name, CourseTable]

    @model_validator(mode="after")
    def _whole(self):
        _check_columns(self.tables, self.columns)
        return self


def _check_columns(tables: dict, columns: dict) -> None:
    for name, table in tables.items():
        unknown = [c for c in table.columns if c not in columns]
        if unknown:
            raise ValueError(f"table {name!r} names the columns {unknown}; valid: {', '.join(columns)}")


class PublishedRow(Settings):
    label: str
    method: str | None = Field(description="ours of the same recipe")
    step: int | None
    values: list[float | None]
    shown: bool = True


class Published(Settings):
    """A table of a paper."""

    paper: str = ""
    arxiv: str = ""
    table: int | str | None = None
    base: str = ""
    note: str
    columns: list[str]
    digits: list[int]
    rows: dict[str, list[PublishedRow]] = Field(description="by task of ours")


def load_layout(path: Path = TABLES) -> Layout:
    """Raises ``ConfigError`` naming file and key, as the two below do."""
    return parse(Layout, read_yaml(path), str(path))


def load_course(path: Path = COURSE) -> CourseLayout:
    return parse(CourseLayout, read_yaml(path), str(path))


def load_published(path: Path = PUBLISHED) -> dict[str, Published]:
    return {name: parse(Published, table, f"{path}: {name}") for name, table in read_yaml(path).items()}
