"""Renders scores as tables: .csv for programs, .md and .html for readers, .tex (booktabs alone) for papers.

What a table holds is data (``config/tables.yaml``), what papers print is data (``config/published.yaml``);
this file selects and computes, ``table_lines`` draws. A table is a list of blocks, one per (base, task),
because the role of a column (proxy, auxiliary, unseen, gold) belongs to the block and stands in its header.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from evaluation.scores import Scores, check_scores
from reporting.layout import Column, Layout, Published
from reporting.statistics import Interval, bootstrap_interval
from reporting.table_files import write_table
from reporting.table_formats import Drawn, numbers
from reporting.table_lines import TIDY, Paper, draw, most

Note = Callable[[Sequence[tuple[str, str]]], str]  # a caption's first sentence, from bases and tasks


class NoRows(ValueError):
    """The scores hold nothing that a table is about."""


class Cell(NamedTuple):
    """One method in one column: over seeds, in the table's units."""

    interval: Interval
    role: str
    steps: set[int]
    images: set[int]  # images per run behind the metric; empty for costs
    prompts: bool  # whether the interval is over prompts within seeds as well


class Row(NamedTuple):
    method: str
    label: str
    cells: dict[str, Cell | None]  # by column; None where never measured
    paper: Paper | None

    @property
    def step(self) -> str:
        return numbers(s for c in self.cells.values() if c for s in c.steps)


class Block(NamedTuple):
    base: str
    task: str
    suite: str  # the task's own
    rows: list[Row]


def _cells(last: Scores, column: Column) -> dict[str, Cell]:
    """One column of a block, by method; ``last``: the block's scores at each run's last step."""
    suite = last.in_suite(column.suite)
    rows = suite.of(metric=column.metric).table
    units = {"scale": column.scale, "over": column.over, "per": column.per}
    values = {m: suite.of(method=m).values(column.metric, **units) for m in rows["method"].unique()}
    if column.relative_to:  # by the mean: the costs of one seed under two methods are not a pair
        reference = [v.mean() for v in values.get(column.relative_to, {}).values()]
        mean = np.mean(reference) if reference else None
        values = {m: {s: v / mean for s, v in of.items()} for m, of in values.items() if reference}
    cells = {}
    for method, by_seed in values.items():
        if by_seed:
            source, known = rows[rows["method"] == method], np.array(list(by_seed.values()))
            role = source["role"].iloc[0]
            images = set() if role == "cost" else set(source["n_images"])
            steps = set(source["step"])
            cells[method] = Cell(bootstrap_interval(known), role, steps, images, known.ndim == 2)
    return cells


def _published(
    sources: Sequence[Published], task: str, method: str, columns: Mapping[str, Column]
) -> Paper | None:
    """The first shown row that a paper has for our method and task, its values under our columns' names."""
    for source in sources:
        for row in source.rows.get(task, []):
            if row.method == method and row.shown:
                printed = zip(row.values, source.digits, strict=True)
                theirs = dict(zip(source.columns, printed, strict=True))
                ours = {n: theirs[c.published] for n, c in columns.items() if c.published in theirs}
                if ours:
                    return Paper(row.label, row.step, ours, source.note)
    return None


def _block(
    last: Scores,
    base: str,
    task: str,
    labels: Mapping[str, str],
    columns: Mapping[str, Column],
    sources: Sequence[Published],
) -> Block:
    """``labels``: method -> label of this table's methods in their order."""
    scores = last.of(base=base, task=task)
    own = scores.in_suite("own").table["suite"]
    found = {name: _cells(scores, column) for name, column in columns.items()}
    rows = []
    for method, label in labels.items():
        cells = {name: by_method.get(method) for name, by_method in found.items()}
        if any(cells.values()):
            rows.append(Row(method, label, cells, _published(sources, task, method, columns)))
    return Block(base, task, own.iloc[0] if len(own) else task, rows)


def tidy(blocks: list[Block], columns: Mapping[str, Column]) -> pd.DataFrame:
    """One row per method and column, in the table's units (after ``scale``); empty where never measured."""
    records = []
    for block, row in ((b, r) for b in blocks for r in b.rows):
        for name, column in columns.items():
            votes = [c.role for r in block.rows if (c := r.cells[name])]
            suite = block.suite if column.suite == "own" else column.suite
            cell, paper = row.cells[name], row.paper.values.get(name, (None,))[0] if row.paper else None
            interval = cell.interval if cell else Interval(None, None, None, 0)
            head = (block.base, block.task, row.method, row.label, row.step, name, column.metric, suite)
            role, prompts = cell.role if cell else most(votes), bool(cell and cell.prompts)
            records.append((*head, role, *interval, paper, prompts))
    return pd.DataFrame(records, columns=[*TIDY, "published", "prompts"])


def _caption(
    blocks: list[Block],
    columns: Mapping[str, Column],
    tidy: pd.DataFrame,
    layout: Layout,
    version: str | None,
    short: bool,
) -> list[str]:
    """Sentences for a table: what is averaged over what, marks, published rows, version."""
    rows = [r for b in blocks for r in b.rows]
    cells = [c for r in rows for c in r.cells.values() if c]
    trained = [c for r in rows if r.method != layout.base_method for c in r.cells.values() if c]
    seeds = numbers(c.interval.seeds for c in cells)
    brackets = "95 % bootstrap interval over seeds"
    if any(c.prompts for c in cells):
        brackets += " and over the prompts within a seed"
    elif seeds == "1":
        brackets = "one run each, so no interval"
    steps = numbers(s for c in trained for s in c.steps)
    facts = (
        f"Mean {'± half the' if short else 'and'} {brackets}. Seeds: {seeds}. Last step of each run: {steps}."
    )
    images = {i for c in cells for i in c.images}
    facts += f" Images per run and metric: {numbers(images)}." if images else ""
    controls = any(r.method in layout.controls for r in rows)
    legend = [f"Bold: best mean of the block, the base row {'and controls ' if controls else ''}apart"]
    legend += layout.legend(tidy["role"])
    if (tidy[tidy["seeds"] > 0].groupby(["base", "task", "column"])["role"].nunique() > 1).any():
        legend.append("a role named in a cell is that run's own")
    sentences = [facts, "; ".join(legend) + "."]
    papers = [r.paper for r in rows if r.paper]
    if papers:
        shown = {name for p in papers for name in p.values}
        pairs = [(c.header, c.published) for n, c in columns.items() if n in shown]
        stand_ins = [f"{ours} = {theirs}" for ours, theirs in pairs if ours != theirs]
        sentences += dict.fromkeys(p.note for p in papers)
        sentences += [f"Their columns: {'; '.join(stand_ins)}."] if stand_ins else []
    return sentences + ([version] if version else [])


def _select(
    last: Scores,
    name: str,
    layout: Layout,
    labels: Mapping[str, str],
    published: Mapping[str, Published],
    bases: list[str],
) -> tuple[list[Block], dict[str, Column]]:
    """Blocks and columns of table ``name``; ``NoRows`` names what the scores lack."""
    spec = layout.tables[name]
    chosen = spec.chosen_bases(bases)
    methods, subject = spec.chosen_methods(labels, layout.base_method)
    columns = {key: layout.columns[key] for key in spec.columns}
    sources = [published[key] for key in spec.published if key in published]
    shown = {m: labels[m] for m in methods}
    blocks = [_block(last, b, t, shown, columns, sources) for b in chosen for t in spec.tasks]
    blocks = [b for b in blocks if subject & {r.method for r in b.rows}]
    if not blocks:
        raise NoRows(
            f"table {name!r} has no scores. It needs base: {chosen or f'any other than {bases}'}; "
            f"task: {spec.tasks}; methods: {sorted(subject) or spec.subject or spec.methods}"
        )
    held = {key for key in columns if any(r.cells[key] for b in blocks for r in b.rows)}
    if spec.about and not held.intersection(spec.about):
        raise NoRows(f"table {name!r} has no scores of what it is about: {', '.join(spec.about)}")
    return blocks, {key: c for key, c in columns.items() if key in held or not c.optional}


def drawn(
    scores: Scores, name: str, layout: Layout, labels: Mapping[str, str], bases: Sequence[str]
) -> Drawn:
    """Title and lines of a table's blocks, without the papers' rows. Raises ``NoRows``."""
    blocks, columns = _select(scores.last(), name, layout, labels, {}, list(bases))
    return draw(tidy(blocks, columns), layout, short=layout.tables[name].short)


def render(
    scores: Scores,
    layout: Layout,
    labels: Mapping[str, str],
    published: Mapping[str, Published],
    out: Path,
    *,
    requested: Sequence[str] = (),
    bases: Sequence[str] = (),
    version: str | None = None,
    note: Note | None = None,
) -> list[Path]:
    """Write every table that has rows as ``<out>/<table>.{csv,md,tex,html}``; returns the paths.

    ``labels``: method -> label, in the grid's order. ``bases``: the grid's bases in order, the first being
    the main one (default: as they come in the scores). ``version``: a last line for the caption, such as the
    commit. ``note``: its first sentence, such as what the instrument can judge there.
    A table without rows is left out, unless ``requested`` names it: then ``NoRows`` is raised.
    """
    check_scores(scores.table)
    for what, names in (
        ("methods without a label", set(scores.table["method"]) - set(labels)),
        ("unknown tables", set(requested) - set(layout.tables)),
    ):
        if names:
            raise ValueError(f"{what}: {sorted(names)}")
    last, bases, paths = scores.last(), list(bases) or list(dict.fromkeys(scores.table["base"])), []
    out.mkdir(parents=True, exist_ok=True)
    for name, spec in layout.tables.items():
        try:
            blocks, columns = _select(last, name, layout, labels, published, bases)
        except NoRows:
            if name in requested:
                raise
            continue
        table = tidy(blocks, columns)
        papers = {(b.base, b.task, r.method): r.paper for b in blocks for r in b.rows if r.paper}
        caption = [note([(b.base, b.task) for b in blocks])] if note else []
        caption += [spec.note] if spec.note else []
        caption += _caption(blocks, columns, table, layout, version, spec.short)
        stored = table.drop(columns="prompts")
        paths += write_table(out, name, spec.title, stored, draw(table, layout, papers, spec.short), caption)
    return paths
