"""The untrained base model beside what it should score: one verdict per metric, before anything is trained.

``python -m reporting.base_check SCORES... --settings FILE --expected FILE --published FILE --out FILE``
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from pydantic import BaseModel, Field

from core.command import run_command
from core.files import replacing, write_text
from core.settings import Settings, parse, read_yaml
from core.tables import read_table
from evaluation.scores import last_step
from reporting.layout import Published, load_published
from reporting.statistics import bootstrap_interval
from reporting.table_formats import DASH

AGREES, LOW, HIGH, UNKNOWN = "agrees", "too low", "too high", "no expected value"
COLUMNS = (
    ["base", "suite", "metric", "mean", "low", "high", "seeds", "n_images"]
    + ["expected", "tolerance", "source", "verdict"]
)  # fmt: skip


def verdict(low: float, high: float, expected: float | None, tolerance: float | None) -> str:
    """Where the expected value stands to the interval [low, high] widened by ``tolerance``."""
    if expected is None:
        return UNKNOWN
    if high + tolerance < expected:
        return LOW
    return HIGH if low - tolerance > expected else AGREES


class ExpectedScore(Settings):
    """What an untrained base model should score on a suite."""

    base: str
    suite: str
    metric: str
    value: float
    source: str


class Recorded(Settings):
    """What the rewards themselves expect, written by the workflow: ``results/config/base_check.yaml``."""

    suites: list[str] = Field(description="in their order")
    scores: list[ExpectedScore]

    def of(self, base: str) -> dict[tuple[str, str], tuple]:
        """(suite, metric) -> (value, scale, source)."""
        return {(s.suite, s.metric): (s.value, 1, s.source) for s in self.scores if s.base == base}


class Ours(Settings):
    suite: str
    metric: str
    scale: float = 1


class PrintedRow(Settings):
    """A published table's row of the base model, and which of our metrics is which of its columns."""

    table: str
    task: str
    source: str
    columns: dict[str, Ours]


class CheckSettings(Settings):
    """``config/base_check.yaml``."""

    otherwise: float = Field(ge=0, description="share of the expected value, where no tolerance is named")
    tolerance: dict[str, float] = Field(description="by metric, in its unit as printed")
    published: dict[str, list[PrintedRow]] = Field({}, description="by base model")


def published_rows(
    base: str, spec: CheckSettings, published: Mapping[str, Published]
) -> dict[tuple[str, str], tuple]:
    """(suite, metric) -> (value, scale, source) that papers print for the base model."""
    found = {}
    for entry in spec.published.get(base, []):
        table = published[entry.table]
        row = next(r for r in table.rows[entry.task] if r.method == "base")
        values = dict(zip(table.columns, row.values, strict=True))
        for column, ours in entry.columns.items():
            found[ours.suite, ours.metric] = (values[column], ours.scale, entry.source)
    return found


def check(
    scores: pd.DataFrame, recorded: Recorded, spec: CheckSettings, published: Mapping[str, Published]
) -> pd.DataFrame:
    """One row per base model, suite and metric. ``scores``: of untrained base models, any tasks and seeds.

    The same base model stands in several tasks; equal suites give equal scores, so each counts once.
    Raises ``ValueError`` where there is no score.
    """
    if scores.empty:
        raise ValueError("the grid has no untrained base model: add the method 'base' to a row")
    scores = last_step(scores[scores["role"] != "cost"])
    rows = []
    for (base, suite, metric), cell in scores.groupby(["base", "suite", "metric"], sort=False):
        expectations = recorded.of(base) | published_rows(base, spec, published)
        expected, scale, source = expectations.get((suite, metric), (None, 1, ""))
        by_seed = cell.drop_duplicates("seed").set_index("seed")
        mean, low, high, seeds = bootstrap_interval(by_seed["value"] * scale)
        tolerance = None
        if expected is not None:
            tolerance = spec.tolerance.get(metric, spec.otherwise * abs(expected))
        images = int(by_seed["n_images"].sum())
        judged = verdict(low, high, expected, tolerance)
        rows.append(
            (base, suite, metric, mean, low, high, seeds, images, expected, tolerance, source, judged)
        )
    table = pd.DataFrame(rows, columns=COLUMNS)
    keys = {"suite": table["suite"].map(recorded.suites.index), "open": table["verdict"] == UNKNOWN}
    order = table.assign(**{f"by_{k}": v for k, v in keys.items()})
    return table.loc[order.sort_values(["base", "by_open", "by_suite", "metric"]).index]


def markdown(table: pd.DataFrame) -> str:
    """What agrees, what does not, and the table."""
    lines = ["# The untrained base model", ""]
    for base, of_base in table.groupby("base", sort=False):
        compared = of_base[of_base["verdict"] != UNKNOWN]
        wrong = compared[compared["verdict"] != AGREES]
        lines.append(f"- {base}: {len(compared) - len(wrong)} of {len(compared)} compared metrics agree.")
        for row in wrong.itertuples():
            lines.append(
                f"  - {row.suite}, {row.metric}: {row.mean:.4g}, {row.verdict}; expected {row.expected:g}"
            )
        if len(wrong):
            lines.append(
                "  - Rows of trained models cannot be compared with the expected ones until these agree."
            )
    heads = ["base", "suite", "metric", "ours", "images", "expected", "source", "tolerance", "verdict"]
    lines += ["", "| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in table.itertuples():
        interval = f" [{row.low:.4g}, {row.high:.4g}]" if row.seeds > 1 else ""
        known = row.verdict != UNKNOWN
        cells = [row.base, row.suite, row.metric, f"{row.mean:.4g}{interval}", str(row.n_images)]
        cells += [f"{row.expected:g}", row.source, f"{row.tolerance:g}"] if known else [DASH] * 3
        lines.append("| " + " | ".join([*cells, row.verdict]) + " |")
    lines += [
        "",
        "Mean and 95 % bootstrap interval over seeds. A metric agrees where the expected value lies in the",
    ]
    lines += ["interval, widened by the tolerance (`config/base_check.yaml`) on both sides.", ""]
    return "\n".join(lines)


def _parsed(model: type[BaseModel], path: Path) -> BaseModel:
    return parse(model, read_yaml(path), str(path))


def _write(arguments) -> None:
    """``--out`` (Markdown) and the same with ``.csv``."""
    parts = [read_table(path) for path in arguments.scores]
    table = check(
        pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(),
        _parsed(Recorded, arguments.settings),
        _parsed(CheckSettings, arguments.expected),
        load_published(arguments.published),
    )
    with replacing(arguments.out.with_suffix(".csv")) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
    write_text(arguments.out, markdown(table))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m reporting.base_check", description=__doc__)
    parser.add_argument("scores", type=Path, nargs="*", help="score files of untrained base models")
    for name in ("settings", "expected", "published", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.set_defaults(call=_write)
    return run_command(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
