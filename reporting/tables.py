"""Renders scores as tables: .csv for programs, .md and .html for readers, .tex (booktabs alone) for papers.

What a table holds is data (``config/tables.yaml``), what papers print is data (``config/published.yaml``);
this file selects and computes, ``table_formats`` draws. A table is a list of blocks, one per (base, task),
because the role of a column (proxy, auxiliary, unseen, gold) belongs to the block and stands in its header.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from reporting.image_scores import ByImage, by_seed
from reporting.statistics import ROLES, Interval, bootstrap_interval, check_scores, last_step
from reporting.table_files import write_table
from reporting.table_formats import DASH, Text, decimal, numbers

ARROWS = {"higher": " ↑", "lower": " ↓", "neither": ""}


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
    paper: dict | None  # the published row: label, step, note and by our column a (value, digits)

    @property
    def step(self) -> str:
        return numbers(s for c in self.cells.values() if c for s in c.steps)


class Block(NamedTuple):
    base: str
    task: str
    suite: str  # the task's own
    roles: dict[str, str]  # by column; "" where nothing was measured
    rows: list[Row]


def match(patterns: Sequence[str], names: Iterable[str]) -> list[str]:
    """Names chosen by patterns, each once: ``*`` expands in the order of ``names``, ``!p`` takes p out."""
    names, chosen = list(names), []
    for pattern in patterns:
        if pattern.startswith("!"):
            chosen = [n for n in chosen if not fnmatchcase(n, pattern[1:])]
        else:
            chosen += [n for n in names if fnmatchcase(n, pattern) and n not in chosen]
    return chosen


def _cells(rows: pd.DataFrame, column: Mapping, own: str, images: ByImage) -> dict[str, Cell]:
    """One column of a block, by method; ``rows``: the block's scores at each run's last step, ``own``: the
    suite of its task."""
    rows = rows[rows["suite"] == (own if column["suite"] == "own" else column["suite"])].set_index(
        ["method", "seed"]
    )
    of_metric = rows[rows["metric"] == column["metric"]]
    values = of_metric["value"] * column.get("scale", 1)
    if "per" in column:
        divisor = rows.loc[rows["metric"] == column["per"], "value"]
        values = (values / divisor[divisor != 0]).dropna()  # the base model generates no training image
    if "relative_to" in column:  # by the mean: the costs of one seed under two methods are not a pair
        reference = values[values.index.get_level_values("method") == column["relative_to"]]
        values = values / reference.mean()  # NaN without the reference: the column shows dashes
    cells = {}
    for method, of_method in values.dropna().groupby("method"):
        source = of_metric.loc[[method]].reset_index()
        role = source["role"].iloc[0]
        counts = set() if role == "cost" else set(source["n_images"])
        known = np.array(list(by_seed(source, images).values())) * column.get("scale", 1)
        prompts = known.ndim == 2
        interval = bootstrap_interval(known if prompts else of_method)
        cells[method] = Cell(interval, role, set(source["step"]), counts, prompts)
    return cells


def _published(sources: Sequence[Mapping], task: str, method: str, columns: Mapping) -> dict | None:
    """The first shown row that a paper has for our method and task, its values under our columns' names."""
    for source in sources:
        for row in source["rows"].get(task, []):
            if row["method"] == method and row.get("shown", True):
                printed = zip(row["values"], source["digits"], strict=True)
                theirs = dict(zip(source["columns"], printed, strict=True))
                ours = {n: theirs[c["published"]] for n, c in columns.items() if c.get("published") in theirs}
                if ours:
                    return {**row, "values": ours, "note": source["note"]}
    return None


def _block(
    rows,
    base: str,
    task: str,
    own: str,
    labels: Mapping[str, str],
    columns: Mapping,
    sources,
    images: ByImage,
) -> Block:
    """``labels``: method -> label of this table's methods in their order."""
    rows = rows[(rows["base"] == base) & (rows["task"] == task)]
    found = {name: _cells(rows, column, own, images) for name, column in columns.items()}
    result = []
    for method, label in labels.items():
        cells = {name: by_method.get(method) for name, by_method in found.items()}
        if any(cells.values()):
            result.append(Row(method, label, cells, _published(sources, task, method, columns)))
    # The header says what most rows say; a cell of another role carries its own mark.
    votes = {n: [c.role for c in by_method.values()] for n, by_method in found.items()}
    roles = {n: max(ROLES, key=v.count) if v else "" for n, v in votes.items()}
    return Block(base, task, own, roles, result)


def _contends(row: Row, specs: Mapping) -> bool:
    """Whether a row can be the best: the untrained model and the controls are there to be compared with."""
    return row.method not in (specs["base_method"], *specs.get("controls", ()))


def _best(block: Block, columns: Mapping, specs: Mapping) -> dict[str, float]:
    """Best mean per column, rounded as printed, so that what looks like a tie is one."""
    best = {}
    for name, column in columns.items():
        cells = [r.cells[name] for r in block.rows if _contends(r, specs) and r.cells[name]]
        if cells and column["better"] != "neither":
            choose = max if column["better"] == "higher" else min
            best[name] = choose(round(c.interval.mean, column["digits"]) for c in cells)
    return best


def _lines(block: Block, columns: Mapping, specs: Mapping, most_seeds: int) -> tuple[str, list[list[Text]]]:
    """A block's title and its lines: the header, then each row with the published one below it."""
    marks = {role: specs["roles"][role]["mark"] for role in ROLES} | {"": ""}
    headers = [c["header"] + marks[block.roles[n]] + ARROWS[c["better"]] for n, c in columns.items()]
    lines = [[Text("method"), Text("step"), *map(Text, headers)]]
    best = _best(block, columns, specs)
    for row in block.rows:
        line = [Text(row.label), Text(row.step)]
        for name, cell in ((n, row.cells[n]) for n in columns):
            if cell is None:
                line.append(Text(DASH))
                continue
            (mean, low, high, seeds), digits = cell.interval, columns[name]["digits"]
            is_best = _contends(row, specs) and round(mean, digits) == best.get(name)
            tail = f" {cell.role}" if cell.role != block.roles[name] else ""
            tail += f" [{decimal(low, digits)}, {decimal(high, digits)}]" if seeds > 1 or cell.prompts else ""
            tail += f" (n={seeds})" if seeds == 1 or seeds < most_seeds else ""
            line.append(Text(decimal(mean, digits), "bold" if is_best else "", tail))
        lines.append(line)
        if row.paper:
            step = DASH if row.paper["step"] is None else str(row.paper["step"])
            values = [row.paper["values"].get(name) for name in columns]
            texts = [row.paper["label"], step, *(decimal(*v) if v else DASH for v in values)]
            lines.append([Text(t, "italic") for t in texts])
    return f"{block.base}, trained on {specs['tasks'].get(block.task, block.task)}", lines


def _caption(blocks: list[Block], columns: Mapping, specs: Mapping, version: str | None) -> list[str]:
    """Sentences for a table: what is averaged over what, marks, published rows, version."""
    rows = [r for b in blocks for r in b.rows]
    cells = [c for r in rows for c in r.cells.values() if c]
    trained = [c for r in rows if r.method != specs["base_method"] for c in r.cells.values() if c]
    seeds = numbers(c.interval.seeds for c in cells)
    brackets = "95 % bootstrap interval over seeds"
    if any(c.prompts for c in cells):
        brackets += " and over the prompts within a seed"
    elif seeds == "1":
        brackets = "one run each, so no interval"
    steps = numbers(s for c in trained for s in c.steps)
    facts = f"Mean and {brackets}. Seeds: {seeds}. Last step of each run: {steps}."
    images = {i for c in cells for i in c.images}
    facts += f" Images per run and metric: {numbers(images)}." if images else ""
    controls = any(r.method in specs.get("controls", ()) for r in rows)
    legend = [f"Bold: best mean of the block, the base row {'and controls ' if controls else ''}apart"]
    roles = {r for b in blocks for r in b.roles.values()} | {c.role for c in cells}
    legend += [specs["roles"][r]["legend"] for r in ROLES if r in roles and "legend" in specs["roles"][r]]
    if any(c.role != b.roles[n] for b in blocks for r in b.rows for n, c in r.cells.items() if c):
        legend.append("a role named in a cell is that run's own")
    sentences = [facts, "; ".join(legend) + "."]
    papers = [r.paper for r in rows if r.paper]
    if papers:
        shown = {name for p in papers for name in p["values"]}
        pairs = [(c["header"], c["published"]) for n, c in columns.items() if n in shown]
        stand_ins = [f"{ours} = {theirs}" for ours, theirs in pairs if ours != theirs]
        sentences += dict.fromkeys(p["note"] for p in papers)
        sentences += [f"Their columns: {'; '.join(stand_ins)}."] if stand_ins else []
    return sentences + ([version] if version else [])


def tidy(blocks: list[Block], columns: Mapping) -> pd.DataFrame:
    """One row per method and column, in the table's units (after ``scale``); empty where never measured."""
    records = []
    for block, row in ((b, r) for b in blocks for r in b.rows):
        for name, column in columns.items():
            suite = block.suite if column["suite"] == "own" else column["suite"]
            cell, paper = row.cells[name], (row.paper or {"values": {}})["values"].get(name, (None,))[0]
            interval = cell.interval if cell else Interval(None, None, None, 0)
            records.append(
                dict(base=block.base, task=block.task, method=row.method, label=row.label, step=row.step)
                | dict(column=name, metric=column["metric"], suite=suite)
                | dict(role=cell.role if cell else block.roles[name], **interval._asdict(), published=paper)
            )
    return pd.DataFrame(records)


def chosen_bases(spec: Mapping, bases: Sequence[str]) -> list[str]:
    """The base models of a table; ``bases``: the grid's in order."""
    groups = {"first": bases[:1], "others": bases[1:], "all": bases}
    return list(groups[spec["bases"]]) if isinstance(spec["bases"], str) else spec["bases"]


def chosen_methods(spec: Mapping, methods: Iterable[str], base_method: str) -> tuple[list[str], set[str]]:
    """The methods of a table in its order, and those among them without which a block is left out."""
    chosen = sorted(match(spec["methods"], methods), key=lambda m: m != base_method)  # only the base moves
    return chosen, set(match(spec.get("subject", ["*"]), chosen)) - {base_method}


def _select(
    final, name: str, specs: Mapping, labels: Mapping, published: Mapping, bases: list[str], suites, images
):
    """Blocks and columns of table ``name``; ``NoRows`` names what the scores lack."""
    spec, base_method = specs["tables"][name], specs["base_method"]
    chosen = chosen_bases(spec, bases)
    methods, subject = chosen_methods(spec, labels, base_method)
    columns = {key: specs["columns"][key] for key in spec["columns"]}
    sources = [published[key] for key in spec["published"]]
    mine = {m: labels[m] for m in methods}
    blocks = [
        _block(final, b, t, suites.get(t, t), mine, columns, sources, images)
        for b in chosen
        for t in spec["tasks"]
    ]
    blocks = [b for b in blocks if subject & {r.method for r in b.rows}]
    if not blocks:
        raise NoRows(
            f"table {name!r} has no scores. It needs base: {chosen or f'any other than {bases}'}; "
            f"task: {spec['tasks']}; methods: {sorted(subject) or spec.get('subject', spec['methods'])}"
        )
    held = {key for key in columns if any(r.cells[key] for b in blocks for r in b.rows)}
    return blocks, {key: c for key, c in columns.items() if key in held or not c.get("optional")}


def render(
    scores: pd.DataFrame,
    table_specs: Mapping,
    method_rows: Mapping[str, str] | Sequence[tuple[str, str]],
    published: Mapping,
    out_dir: str | Path,
    *,
    requested: Sequence[str] = (),
    bases: Sequence[str] = (),
    suites: Mapping[str, str] | None = None,
    version: str | None = None,
    images: ByImage | None = None,
    note: Callable[[Sequence[tuple[str, str]]], str] | None = None,
) -> list[Path]:
    """Write every table that has rows as ``<out_dir>/<table>.{csv,md,tex,html}``; returns the paths.

    ``table_specs``, ``published``: config/tables.yaml and config/published.yaml as read. ``method_rows``:
    method -> label, in the grid's order. ``bases``: the grid's bases in order, the first being the main
    one (default: as they come in the scores). ``suites``: own suite of each task (default: that of its name).
    ``version``: a last line for the caption, such as the commit. ``images``: scores of single images, for
    intervals over prompts as well. ``note``: first sentence of a caption from the table's bases and tasks,
    such as what the instrument can judge there.
    A table without rows is left out, unless ``requested`` names it: then ``NoRows`` is raised.
    """
    check_scores(scores)
    labels, tables = dict(method_rows), table_specs["tables"]
    for what, names in (
        ("methods without a label", set(scores["method"]) - set(labels)),
        ("unknown tables", set(requested) - set(tables)),
    ):
        if names:
            raise ValueError(f"{what}: {sorted(names)}")
    final = last_step(scores)
    bases = list(bases) or list(dict.fromkeys(scores["base"]))
    out_dir, paths = Path(out_dir), []
    out_dir.mkdir(parents=True, exist_ok=True)
    for name, spec in tables.items():
        try:
            blocks, columns = _select(
                final, name, table_specs, labels, published, bases, suites or {}, images or {}
            )
        except NoRows:
            if name in requested:
                raise
            continue
        most_seeds = max(c.interval.seeds for b in blocks for r in b.rows for c in r.cells.values() if c)
        drawn = [_lines(b, columns, table_specs, most_seeds) for b in blocks]
        caption = [note([(b.base, b.task) for b in blocks])] if note else []
        caption += _caption(blocks, columns, table_specs, version)
        paths += write_table(out_dir, name, spec["title"], tidy(blocks, columns), drawn, caption)
    return paths
