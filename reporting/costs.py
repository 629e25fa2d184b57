"""What each run has cost: the rows behind the ``cost`` table, which averages them by method."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from evaluation.scores import TRAINING, Scores
from reporting import origin
from reporting.layout import Column, Layout
from reporting.table_files import write_table
from reporting.table_formats import Text, decimal


def _columns(layout: Layout) -> dict[str, Column]:
    """By the name that a column has in the .csv. Hours are those of training alone, over all its attempts."""
    return {name: layout.columns[column] for name, column in layout.cost_runs.columns.items()}


def per_run(scores: Scores, provenances: Mapping[str, Mapping[str, Any]], layout: Layout) -> pd.DataFrame:
    """One row per run: its commit, whether that is all of its code, and the layout's columns of costs."""
    training = scores.of(suite=TRAINING)
    trained = set(training.table["run"])  # what somebody else trained has no costs here
    provenances = {run: record for run, record in provenances.items() if run in trained}
    table = pd.DataFrame(
        {
            "run": list(provenances),
            "commit": [p["git"]["commit"] for p in provenances.values()],
            "dirty": [origin.is_dirty(p) for p in provenances.values()],
        }
    )
    for name, column in _columns(layout).items():
        of_metric = training.of(metric=column.metric).table.set_index("run")["value"]
        values = of_metric.reindex(table["run"]).to_numpy() * column.scale / column.over
        whole = (values == values.round()).all()  # a count is written as one, however large
        table[name] = values.astype("int64") if whole else values
    return table


def _line(first: str, values: Mapping[str, float], columns: Mapping[str, Column]) -> list[Text]:
    return [Text(first), *(Text(decimal(values[name], c.digits)) for name, c in columns.items())]


def render(costs: pd.DataFrame, layout: Layout, version: str, out: Path) -> list[Path]:
    """``out/cost_runs.{csv,md,tex,html}``; the last line adds up, and takes the highest of the memories."""
    columns = _columns(layout)
    head = [Text("run"), *(Text(column.header) for column in columns.values())]
    names = costs["run"] + costs["dirty"].map({True: f" {origin.MARK}", False: ""})
    rows = zip(names, costs.to_dict("records"), strict=True)
    total = {n: costs[n].agg("max" if "memory" in n else "sum") for n in columns}
    lines = [head, *(_line(*row, columns) for row in rows), _line(f"{len(costs)} runs", total, columns)]
    return write_table(out, "cost_runs", layout.cost_runs.title, costs, [("all runs", lines)], [version])
