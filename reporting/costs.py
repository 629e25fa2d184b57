"""What each run has cost: the rows behind the ``cost`` table, which averages them by method."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from reporting import origin
from reporting.table_files import write_table
from reporting.table_formats import Text, decimal

TITLE = "Cost of training, run by run"
SECONDS_PER_HOUR = 3600
# Column of the table -> (header, digits). Hours are those of training alone, over all its attempts.
COLUMNS = {
    "wall_hours": ("wall (h)", 3),
    "cpu_hours": ("CPU (h)", 3),
    "device_hours": ("device (h)", 3),
    "peak_memory_mb": ("peak memory (MB)", 0),
    "images_generated": ("images generated", 0),
    "reward_calls": ("reward calls", 0),
    "gradient_steps": ("updates", 0),
}


def per_run(provenances: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """One row per run: its commit, whether that is all of its code, and ``COLUMNS``."""
    rows = []
    for run, provenance in provenances.items():
        hours = {
            name: provenance[name.replace("hours", "seconds")] / SECONDS_PER_HOUR
            for name in COLUMNS
            if name.endswith("_hours")
        }
        rest = {name: provenance[name] for name in COLUMNS if name not in hours}
        source = {"commit": provenance["git"]["commit"], "dirty": origin.is_dirty(provenance)}
        rows.append({"run": run, **source, **hours, **rest})
    return pd.DataFrame(rows, columns=["run", "commit", "dirty", *COLUMNS])


def _line(first: str, values: Mapping[str, float]) -> list[Text]:
    cells = [decimal(values[name], digits) for name, (_, digits) in COLUMNS.items()]
    return [Text(first), *map(Text, cells)]


def render(costs: pd.DataFrame, version: str, out: Path) -> list[Path]:
    """``out/cost_runs.{csv,md,tex,html}``; the last line adds up, and takes the highest of the memories."""
    head = [Text("run"), *(Text(header) for header, _ in COLUMNS.values())]
    names = costs["run"] + costs["dirty"].map({True: f" {origin.MARK}", False: ""})
    lines = [_line(name, row) for name, row in zip(names, costs.to_dict("records"), strict=True)]
    total = dict(costs[list(COLUMNS)].sum()) | {"peak_memory_mb": costs["peak_memory_mb"].max()}
    blocks = [("all runs", [head, *lines, _line(f"{len(costs)} runs", total)])]
    return write_table(out, "cost_runs", TITLE, costs, blocks, [version])
