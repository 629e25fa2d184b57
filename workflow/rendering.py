"""What is rendered at the end, checked before the first job: it must find what it names."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

from core.settings import ConfigError
from didactic.configuration import load as load_mixture
from evaluation.configuration import EvaluationConfig
from reporting import claim_tests, instrument_settings
from reporting.figure_settings import FIGURES, load_figures
from reporting.layout import (
    COURSE,
    TABLES,
    CourseTable,
    Table,
    load_course,
    load_layout,
    load_published,
    match,
)
from runs.config_files import method_names, task_names
from runs.logged import LOGGED, is_logged

CLAIMS, MIXTURE = (Path(f"config/{name}.yaml") for name in ("claims", "gaussian_mixture"))
LAYOUTS = {TABLES: load_layout, COURSE: load_course}


def check_instrument() -> None:
    """Raise ``ConfigError`` for a control that is no method, and for thresholds of an unknown task."""
    path = instrument_settings.INSTRUMENT
    config, methods, tasks = instrument_settings.load(path), method_names(), task_names()
    named = {f"rows.{key}": method for key, method in config.rows.model_dump().items()}
    for key, method in [*named.items(), *(("other_controls", m) for m in config.other_controls)]:
        if method not in methods:
            raise ConfigError(f"{path}: {key} names {method!r}; valid: {', '.join(methods)}")
    for task in config.tasks:
        if not any(fnmatchcase(known, task) for known in tasks):
            raise ConfigError(f"{path}: tasks names {task!r}; valid: {', '.join(tasks)}")


def check_claims() -> None:
    """Raise ``ConfigError`` for a claim about a method that does not exist."""
    trained, mixed = method_names(), sorted(load_mixture(MIXTURE).rows)
    for name, claim in claim_tests.load(CLAIMS).claims.items():
        for test in claim.tests:
            known = mixed if test.mixture else trained
            for key in ("method", "against"):
                named = getattr(test, key)
                if named is not None and not any(fnmatchcase(method, named) for method in known):
                    raise ConfigError(
                        f"{CLAIMS}: claims.{name}: {key} names {named!r}; valid: {', '.join(known)}"
                    )
            if test.history is not None and not is_logged(test.history):
                raise ConfigError(
                    f"{CLAIMS}: claims.{name}: history names {test.history!r}; valid: {', '.join(LOGGED)}"
                )


def check_figures() -> None:
    """Raise ``ConfigError`` for a wrong setting of a figure, or a method that does not exist."""
    known = method_names()
    for key, named in load_figures(FIGURES).named().items():
        for method in named:
            if not any(fnmatchcase(one, method) for one in known):
                raise ConfigError(f"{FIGURES}: {key} names {method!r}; valid: {', '.join(known)}")


def _tables() -> dict[str, tuple[Path, Table | CourseTable]]:
    """All tables by name, of the last step and of the course of training, with their files."""
    last, course = ({n: (path, t) for n, t in read(path).tables.items()} for path, read in LAYOUTS.items())
    return last | course


def check_tables(requested: list[str]) -> None:
    """Raise ``ConfigError`` for a table that does not exist, or wrong published numbers."""
    known = _tables()
    load_published()
    for name in requested:
        if name not in known:
            raise ConfigError(f"key 'tables' names {name!r}; valid: {', '.join(known)}")


def filled_tables(rows: list, evaluation: EvaluationConfig) -> list[str]:
    """Every table of which the grid has a row and evaluation a column, in the order of their files."""
    known, measured = _tables(), evaluation.measured()
    return [name for name, (_, spec) in known.items() if _has_row(spec, rows) and _has_column(spec, measured)]


def empty_tables(requested: list[str], rows: list) -> list[str]:
    """One line for each requested table that no row of the grid would fill."""
    known, bases = _tables(), list(dict.fromkeys(row.base for row in rows))
    return [
        f"key 'tables' names {name!r}, for which the grid has no row: {path} wants the bases "
        f"{spec.chosen_bases(bases) or 'after the first'}, one of the tasks {', '.join(spec.tasks)} and "
        f"one of the methods {', '.join(spec.subject or spec.methods)}"
        for name, (path, spec) in ((name, known[name]) for name in requested)
        if not _has_row(spec, rows)
    ]


def _has_column(spec: Table | CourseTable, measured: set[str]) -> bool:
    """Whether a table that is about some columns has one of them."""
    if isinstance(spec, CourseTable) or not spec.about:
        return True
    return bool({load_layout().columns[name].metric for name in spec.about} & measured)


def _has_row(spec: Table | CourseTable, rows: list) -> bool:
    methods = dict.fromkeys(method for row in rows for method in row.methods)
    _, subject = spec.chosen_methods(methods, load_layout().base_method)
    bases = spec.chosen_bases(list(dict.fromkeys(row.base for row in rows)))
    tasks = match(spec.tasks, [row.task for row in rows])
    return any(r.base in bases and r.task in tasks and subject & set(r.methods) for r in rows)
