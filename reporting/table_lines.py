"""A table as lines to draw, from its tidy rows: those that the .csv beside it holds, rounded there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd

from evaluation.scores import ROLES
from reporting.layout import Layout
from reporting.table_formats import DASH, Drawn, Text, decimal

BLOCK = ["base", "task"]
TIDY = [*BLOCK, "method", "label", "step", "column", "metric", "suite", "role"]
TIDY += ["mean", "low", "high", "seeds"]


class Paper(NamedTuple):
    """A published row below ours."""

    label: str
    step: int | None
    values: dict[str, tuple[float | None, int]]  # our column -> printed value and its digits
    note: str


Papers = Mapping[tuple[str, str, str], Paper]  # by base, task and method


def most(roles: list[str]) -> str:
    """What most cells of a column are; "" where nothing was measured."""
    return max(ROLES, key=roles.count) if roles else ""


def _best(block: pd.DataFrame, layout: Layout) -> dict[str, float]:
    """Best mean per column, rounded as printed, so that what looks like a tie is one."""
    best = {}
    contenders = block[block["method"].map(layout.contends) & (block["seeds"] > 0)]
    for name, cells in contenders.groupby("column", sort=False):
        column = layout.columns[name]
        if column.better != "neither":
            choose = max if column.better == "higher" else min
            best[name] = choose(round(mean, column.digits) for mean in cells["mean"])
    return best


def _lines(
    block: pd.DataFrame,
    place: tuple[str, str],
    layout: Layout,
    most_seeds: int,
    papers: Papers,
    short: bool,
) -> list[list[Text]]:
    """The header, then each row with the published one below it; short: neither step nor bounds."""
    names, best = list(dict.fromkeys(block["column"])), _best(block, layout)
    measured = block[block["seeds"] > 0]
    roles = {name: most(list(measured.loc[measured["column"] == name, "role"])) for name in names}
    columns = {name: layout.columns[name] for name in names}
    headers = [c.header + layout.mark(roles[n]) + c.arrow for n, c in columns.items()]
    lines = [[Text("method"), *[Text("step")] * (not short), *map(Text, headers)]]
    for method, cells in block.groupby("method", sort=False):
        line = [Text(cells["label"].iloc[0]), *[Text(cells["step"].iloc[0])] * (not short)]
        for cell in cells.itertuples():
            if not cell.seeds:
                line.append(Text(DASH))
                continue
            digits, seeds = columns[cell.column].digits, cell.seeds
            is_best = layout.contends(method) and round(cell.mean, digits) == best.get(cell.column)
            tail = f" {cell.role}" if cell.role != roles[cell.column] else ""
            shown = seeds > 1 or cell.prompts
            if short:
                half = decimal((cell.high - cell.low) / 2, digits)
                line.append(Text(decimal(cell.mean, digits), "bold" if is_best else "", f" ±{half}" * shown))
                continue
            tail += f" [{decimal(cell.low, digits)}, {decimal(cell.high, digits)}]" if shown else ""
            tail += f" (n={seeds})" if seeds == 1 or seeds < most_seeds else ""
            line.append(Text(decimal(cell.mean, digits), "bold" if is_best else "", tail))
        lines.append(line)
        if paper := papers.get((*place, method)):
            step = DASH if paper.step is None else str(paper.step)
            values = [paper.values.get(name) for name in names]
            texts = [paper.label, step, *(decimal(*v) if v else DASH for v in values)]
            lines.append([Text(t, "italic") for t in texts])
    return lines


def draw(tidy: pd.DataFrame, layout: Layout, papers: Papers | None = None, short: bool = False) -> Drawn:
    """Title and lines of every block.

    ``tidy``: ``TIDY`` and ``prompts``, whether an interval is over prompts as well.
    """
    most_seeds = int(tidy["seeds"].max())
    return [
        (layout.title(*place), _lines(block, place, layout, most_seeds, papers or {}, short))
        for place, block in tidy.groupby(BLOCK, sort=False)
    ]
