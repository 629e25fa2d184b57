"""Comparisons along the training: at the same proxy, at the turn of gold, by choice of the checkpoint.

What they hold is data (``config/trajectories.yaml``), their numbers are those of ``trajectories``; this file
gathers them by base and task and draws them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from reporting import trajectories
from reporting.layout import CourseColumn, CourseLayout, CourseTable, Layout, match
from reporting.statistics import Interval, bootstrap_interval
from reporting.table_files import write_table
from reporting.table_formats import DASH, Text, decimal, numbers
from reporting.tables import NoRows, Note
from reporting.trajectories import GOLD, PROXY

Roles = Mapping[tuple[str, str], Mapping[str, str]]  # (base, task) -> metric -> role


class Row(NamedTuple):
    method: str
    label: str
    facts: dict[str, str]  # what stands before the numbers, by header
    cells: dict[str, Interval | None]  # by column, in the table's units; None where never measured
    runs: int  # seeds that a cell has where nothing is missing


class Block(NamedTuple):
    base: str
    task: str
    heading: str  # what the title says behind base and task
    rows: list[Row]


class Setting(NamedTuple):
    """One table on one base and task. ``curves``: of its methods, which are in order in ``labels``."""

    curves: pd.DataFrame
    labels: Mapping[str, str]
    roles: Mapping[str, str]
    spec: CourseTable
    columns: Mapping[str, CourseColumn]
    control: pd.DataFrame
    control_name: str

    def by_method(self) -> Iterator[tuple[str, pd.DataFrame]]:
        found = dict(list(self.curves.groupby("method")))
        return ((method, found[method]) for method in self.labels if method in found)

    def row(
        self, method: str, label: str, facts: dict[str, str], values: Mapping[str, Any], runs: int
    ) -> Row:
        """``values``: by column or metric an ``Interval`` or values by seed, of which NaN are left out."""
        cells = {}
        for name, column in self.columns.items():
            value, scale = values.get(column.metric or name), column.scale
            if not (value is None or isinstance(value, Interval)):
                finite = np.asarray(value, dtype=float)
                finite = finite[np.isfinite(finite)] * scale
                value = bootstrap_interval(finite) if len(finite) else None
            cells[name] = value
        return Row(method, label, facts, cells, runs)

    def start_row(self, facts: dict[str, str]) -> Row:
        """Where all methods start, at the base model."""
        first = trajectories.start(self.curves)
        return self.row("start", self.spec.start, facts, first, len(first))


def _matched(setting: Setting) -> list[tuple[str, list[Row]]]:
    shares, digits = setting.spec.levels, setting.spec.levels.digits
    origin = float(trajectories.start(setting.curves)[PROXY].mean())
    mine = setting.curves[setting.curves["method"].isin(match(shares.methods, setting.labels))]
    if mine.empty:
        return []
    blocks = []
    for level in trajectories.levels(mine, origin, shares.common, shares.beyond, digits):
        rows = [setting.start_row({"reached": f"starts at {decimal(origin, digits)}"})]
        for method, curves in setting.by_method():
            found, seeds = trajectories.at_level(curves, level), curves["seed"].nunique()
            values = dict(found.items())
            values["control_gold"] = [
                trajectories.at_step(of_seed, GOLD, found.loc[seed, "step"])
                for seed, of_seed in setting.control.groupby("seed")
                if seed in found.index and method != setting.control_name
            ]
            facts = {"reached": f"{len(found)} of {seeds}" if len(found) else f"never, 0 of {seeds}"}
            rows.append(setting.row(method, setting.labels[method], facts, values, len(found)))
        blocks.append((f": where the proxy first reaches {decimal(level, digits)}", rows))
    return blocks


def _turn(setting: Setting) -> list[tuple[str, list[Row]]]:
    rows, control = [], trajectories.runs_over_steps(setting.control, GOLD)
    for method, curves in setting.by_method():
        gold = trajectories.runs_over_steps(curves, GOLD)
        if gold.empty:
            continue
        turn = trajectories.turn(gold)
        proxy = trajectories.runs_over_steps(curves[curves["seed"].isin(gold.columns)], PROXY)
        step, last = turn.step.mean, gold.index[-1]
        values = {
            "step": turn.step,
            "gold_start": gold.iloc[0],
            "gold_max": turn.height,
            "gold_end": turn.end,
        }
        values |= {"lost": turn.lost, "held_out": turn.held_out}
        values |= {"proxy_max": proxy.loc[step], "proxy_end": proxy.loc[last]}
        if method != setting.control_name and {step, last} <= set(control.index):
            values["control_lost"] = control.loc[step] - control.loc[last]
        rows.append(setting.row(method, setting.labels[method], {}, values, gold.shape[1]))
    return [("", rows)]


def _selection(setting: Setting) -> list[tuple[str, list[Row]]]:
    auxiliaries = [metric for metric, role in setting.roles.items() if role == "auxiliary"]
    full = setting._replace(curves=trajectories.with_auxiliaries(setting.curves, auxiliaries))
    rows = [setting.start_row({"checkpoint": DASH})]
    for method, curves in full.by_method():
        for selection, name in setting.spec.selections.items():
            found = trajectories.selected(curves, selection)
            if len(found):
                facts, seeds = {"checkpoint": name}, curves["seed"].nunique()
                rows.append(setting.row(method, setting.labels[method], facts, found, seeds))
    return [("", rows)]


KINDS: Mapping[str, Callable[[Setting], list[tuple[str, list[Row]]]]] = {
    "matched": _matched,
    "turn": _turn,
    "selection": _selection,
}


def roles_of(scores: pd.DataFrame) -> Roles:
    """What each metric is on a base and task, as most of its scores say."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    counts = scores[scores["role"] != "cost"].groupby(["base", "task", "metric"])["role"]
    for (base, task, metric), role in counts.agg(lambda r: r.mode().iloc[0]).items():
        found.setdefault((base, task), {})[metric] = role
    return found


def _lines(
    block: Block, columns: Mapping[str, CourseColumn], roles: Mapping[str, str], layout: Layout
) -> list[list[Text]]:
    headers = [c.header + layout.mark(roles.get(c.metric)) + c.arrow for c in columns.values()]
    lines = [[Text("method"), *map(Text, block.rows[0].facts), *map(Text, headers)]]
    for row in block.rows:
        line = [Text(row.label), *map(Text, row.facts.values())]
        for name, column in columns.items():
            cell, digits = row.cells[name], column.digits
            if cell is None:
                line.append(Text(DASH))
                continue
            tail = f" [{decimal(cell.low, digits)}, {decimal(cell.high, digits)}]" if cell.seeds > 1 else ""
            tail += f" (n={cell.seeds})" if cell.seeds == 1 or cell.seeds != row.runs else ""
            line.append(Text(decimal(cell.mean, digits), "", tail))
        lines.append(line)
    return lines


def _tidy(blocks: Sequence[Block], columns: Mapping) -> pd.DataFrame:
    """One row per method and column, in the table's units; empty where never measured."""
    records = []
    for block, row in ((b, r) for b in blocks for r in b.rows):
        for name in columns:
            interval = row.cells[name] or Interval(None, None, None, 0)
            head = {"base": block.base, "task": block.task, "at": block.heading.removeprefix(": ")}
            head |= {"method": row.method, "label": row.label, **row.facts, "column": name}
            records.append(head | interval._asdict())
    return pd.DataFrame(records)


def _blocks(
    curves, name: str, course: CourseLayout, base_method: str, labels, roles: Roles, bases
) -> list[Block]:
    blocks = []
    spec = course.tables[name]
    methods, subject = spec.chosen_methods(labels, base_method)
    mine = {m: labels[m] for m in methods if m != base_method}
    columns = {key: course.columns[key] for key in spec.columns}
    tasks = match(spec.tasks, curves["task"].unique())
    for base in spec.chosen_bases(bases):
        for task in tasks:
            of_task = curves[(curves["base"] == base) & (curves["task"] == task)]
            shown = of_task[of_task["method"].isin(list(mine))]
            if not subject & set(shown["method"]):
                continue
            control = of_task[of_task["method"] == course.control]
            here = roles.get((base, task), {})
            setting = Setting(shown, mine, here, spec, columns, control, course.control)
            blocks += [Block(base, task, h, rows) for h, rows in KINDS[spec.kind](setting) if rows]
    if not blocks:
        raise NoRows(
            f"table {name!r} has no training histories. It needs base: {spec.chosen_bases(bases)}; task: "
            f"{spec.tasks}; methods: {sorted(subject) or spec.methods}, with logged rewards"
        )
    return blocks


def _caption(
    blocks: Sequence[Block],
    spec: CourseTable,
    columns: Mapping[str, CourseColumn],
    course: CourseLayout,
    layout: Layout,
    curves: pd.DataFrame,
    roles: Roles,
) -> list[str]:
    """Sentences for a table: windows, intervals, how its numbers are read, roles."""
    cells = [c for b in blocks for r in b.rows for c in r.cells.values() if c]
    shown = {(b.base, b.task) for b in blocks}
    widths = sorted({trajectories.width(c) for key, c in curves.groupby(trajectories.BLOCK) if key in shown})
    values = {"windows": course.windows, "seeds": numbers(c.seeds for c in cells)}
    values |= {"width": DASH.join(dict.fromkeys(f"{w:g}" for w in (widths[0], widths[-1])))}
    sentences = [s.format(**values) for s in (course.caption, *spec.caption)]
    metrics = {c.metric for c in columns.values()} - {PROXY}
    here = {role for key in shown for metric, role in roles.get(key, {}).items() if metric in metrics}
    legend = layout.legend(here)
    return sentences + (["; ".join(legend) + "."] if legend else [])


def render(
    curves: pd.DataFrame,
    roles: Roles,
    course: CourseLayout,
    layout: Layout,
    labels: Mapping[str, str],
    out: Path,
    *,
    requested: Sequence[str] = (),
    bases: Sequence[str] = (),
    version: str | None = None,
    note: Note | None = None,
) -> list[Path]:
    """Write every table of ``course`` that has rows as ``out/<table>.{csv,md,tex,html}``.

    ``curves``: as made by ``trajectories.windowed``. ``labels``: method -> label in the grid's order.
    ``bases``: the grid's, in order. ``note``: a caption's first sentence. A table without rows is left out,
    unless ``requested`` names it: then ``NoRows`` is raised.
    """
    paths: list[Path] = []
    out.mkdir(parents=True, exist_ok=True)
    curves = curves.dropna(subset=[PROXY]) if PROXY in curves else curves.iloc[:0]
    bases = list(bases) or list(curves["base"].unique())
    for name, spec in course.tables.items():
        try:
            blocks = _blocks(curves, name, course, layout.base_method, labels, roles, bases)
        except NoRows:
            if name in requested:
                raise
            continue
        held = [k for k in spec.columns if any(r.cells[k] for b in blocks for r in b.rows)]
        columns = {key: course.columns[key] for key in held}
        titles = [layout.title(b.base, b.task) + b.heading for b in blocks]
        lines = [_lines(b, columns, roles.get((b.base, b.task), {}), layout) for b in blocks]
        caption = [note([(b.base, b.task) for b in blocks])] if note else []
        caption += _caption(blocks, spec, columns, course, layout, curves, roles)
        caption += [version] if version else []
        drawn = list(zip(titles, lines, strict=True))
        paths += write_table(out, name, spec.title, _tidy(blocks, columns), drawn, caption)
    return paths
