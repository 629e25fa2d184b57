"""Every setting of a run, the file that set it, and where its value comes from.

Settings are layered (runs/resolve.py). Of the files that set one, the last wins and is named; the origin
is the comment on its line: paper, upstream or ours. A default's is what its field is for.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

import methods
from base_models.configuration import BaseModelConfig
from runs.config_files import CONFIG
from runs.configuration import RunConfig, TaskTraining, TrainingConfig, load_run
from runs.resolve import grid_rows, resolve_run

SECTIONS = ("base_model", "task_settings", "training", "parameters")
MODELS = {"base_model": BaseModelConfig, "task_settings": TaskTraining, "training": TrainingConfig}
WIDEST = 48  # characters of a value; longer ones are cut


@dataclass(frozen=True)
class Line:
    """One setting. ``origin`` is empty where the file gives none."""

    name: str
    value: Any
    layer: str
    origin: str
    stored: Any = None  # the value of the run's own run.yaml, where that is another one


@dataclass(frozen=True)
class Layer:
    """A file, and the part of it whose keys are those of one section of a run."""

    path: Path
    section: tuple[str | int, ...] = ()

    def found(self, keys: Sequence[str]) -> str | None:
        """The comment of the setting, empty if it has none; None where this layer does not set it."""
        text = self.path.read_text()
        node, line = yaml.compose(text), 0
        for key in (*self.section, *keys):
            entry = _entry(node, key)
            if entry is None:
                return None
            line, node = entry
        return text.splitlines()[line].partition("# ")[2].strip()


def _entry(node: yaml.Node, key: str | int) -> tuple[int, yaml.Node] | None:
    """Line and value of a key of a mapping, those merged into it included, or of a place in a list."""
    if isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
        return node.value[key].start_mark.line, node.value[key]
    if not isinstance(node, yaml.MappingNode):
        return None
    for name, value in node.value:
        if name.value == key:
            return name.start_mark.line, value
    merged = (_entry(value, key) for name, value in node.value if name.value == "<<")
    return next((entry for entry in merged if entry), None)


def extended(folder: str, name: str) -> list[Path]:
    """The files of a task, method or base model, the one that the others extend first."""
    path = CONFIG / folder / f"{name}.yaml"
    before = (yaml.safe_load(path.read_text()) or {}).get("extends")
    return [*(extended(folder, before) if before else []), path]


def layers(run: RunConfig, main: Sequence[Path], row: int | None = None) -> dict[str, list[Layer]]:
    """For each section of a run the layers that may set it, the first overruled by those behind it.

    Args:
        main: the main config files, in the order in which they are laid on each other.
        row: the run's place in the grid, whose own settings go over all others.
    """
    grids = [path for path in main if "grid" in yaml.safe_load(path.read_text())]
    task, method, base = (
        extended(folder, name)
        for folder, name in (("tasks", run.task), ("methods", run.method), ("base_models", run.base))
    )

    def part(files: Sequence[Path], *section: str | int) -> list[Layer]:
        return [Layer(path, section) for path in files]

    def own(section: str) -> list[Layer]:
        return [] if row is None else part(grids[-1:], "grid", row, section)

    return {
        "base_model": part(base) + part(task, "base_model"),
        "task_settings": part(task),
        "training": part(task, "training")
        + part(method, "training")
        + part(main, "training")
        + own("training"),
        "parameters": part(method, "parameters") + part(main, "parameters") + own("parameters"),
    }


def _default(model: type[BaseModel], key: str) -> tuple[str, str]:
    """The file whose class gives the setting its default, and what the setting is for."""
    owner = next(c for c in reversed(model.__mro__) if key in getattr(c, "model_fields", {}))
    file = Path(inspect.getfile(owner)).relative_to(Path(methods.__file__).parents[1])
    return f"default of {file}", model.model_fields[key].description or ""


def _leaves(value: Any, keys: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, (*keys, str(key)))
    else:
        yield keys, value


def explain(
    run: RunConfig, main: Sequence[Path], stored: RunConfig | None = None, row: int | None = None
) -> list[Line]:
    """One line per setting of the four layered sections, in the order of run.yaml. ``row``: in the grid."""
    by_section, lines = layers(run, main, row), []
    before = dict(_leaves(stored.model_dump())) if stored else {}
    for section in SECTIONS:
        model = MODELS.get(section) or methods.get(run.algorithm).Config
        for keys, value in _leaves(run.model_dump()[section]):
            found = [(layer, layer.found(keys)) for layer in by_section[section]]
            found = [(layer, origin) for layer, origin in found if origin is not None]
            if found:
                layer, origin = str(found[-1][0].path), found[-1][1]
            else:
                layer, origin = _default(model, keys[0])
            old = before.get((section, *keys), value)
            lines.append(
                Line(".".join((section, *keys)), value, layer, origin, None if old == value else old)
            )
    return lines


def _short(value: Any) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…"


def text(run: RunConfig, lines: list[Line]) -> str:
    """The lines as aligned columns, under the run's name and hash."""
    cells = [(line.name, _short(line.value), line.layer, line.origin) for line in lines]
    widths = [max(len(row[i]) for row in cells) for i in range(3)]
    shown = [f"{run.run}  (hash {run.hash[:12]})", ""]
    for line, row in zip(lines, cells, strict=True):
        columns = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        shown.append("  ".join([*columns, row[3]]).rstrip())
        if line.stored is not None:
            shown.append(f"  ^ the run was made with {_short(line.stored)}")
    return "\n".join(shown) + "\n"


def explain_run(name: str, main: Sequence[Path], config: dict, folder: Path) -> str:
    """The explanation of ``BASE__TASK__METHOD__sSEED``; beside what ``folder`` holds of it, if anything.

    Raises:
        ValueError: no run can have this name.
    """
    parts = name.split("__")
    if len(parts) != 4 or not parts[3].startswith("s") or not parts[3][1:].isdigit():
        raise ValueError(f"{name!r} is no run; valid: BASE__TASK__METHOD__sSEED, tiny-sd3__ocr__gardo__s1")
    base, task, method, seed = parts
    rows = grid_rows(config) if "grid" in config else []
    own = [
        place
        for place, row in enumerate(rows)
        if (row.base, row.task) == (base, task) and method in row.methods and int(seed[1:]) in row.seeds
    ]
    place = own[0] if own else None
    run = resolve_run(base, task, method, int(seed[1:]), config, rows[place] if own else None)
    stored = load_run(folder) if (folder / "run.yaml").exists() else None
    return text(run, explain(run, main, stored, place))
