"""The papers' claims as tests over the scores: effect, interval and a computed verdict per base and task.

A claim holds where every one of its tests does. One test compares two methods on one metric of the task's
own suite at the last step; the difference is paired by seed, because methods of one seed share evaluation
noise, and its interval is a bootstrap over seeds:

    holds         the whole interval of the difference lies beyond the margin in the claimed direction
    contradicted  the whole interval lies on the other side
    undecided     neither

No verdict can be written by hand: the file of claims has no field for one.
"""

from __future__ import annotations

import fnmatch
import json
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from evaluation.statistics import bootstrap_interval, last_step
from evaluation.table_formats import Text, decimal, markdown
from training.configuration import ConfigError, parse, read_yaml
from training.files import replacing

Verdict = Literal["holds", "contradicted", "undecided"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ClaimTest(_Strict):
    """``method`` minus ``against`` on ``metric`` must lie above (``higher``) or below ``margin``."""

    metric: str = Field(description="a metric's name, or proxy: the task's proxy metric")
    method: str
    against: str = Field(description="a method, or a pattern whose every match is compared")
    direction: Literal["higher", "lower"]
    margin: float = Field(0.0, description="in the metric's own units; -0.03 and higher: not worse by 0.03")


class Claim(_Strict):
    text: str
    source: str
    tasks: list[str] | None = Field(None, description="where the claim applies; none: every task")
    tests: list[ClaimTest] = Field(min_length=1)


def load(path: Path) -> dict[str, Claim]:
    """Claims by id. Raises ``ConfigError`` naming file and key."""
    return {
        name: parse(Claim, value if isinstance(value, dict) else {}, f"{path}: claim {name!r}")
        for name, value in read_yaml(path).items()
    }


def judge(low: float, high: float, direction: str, margin: float) -> Verdict:
    """The verdict of an interval of differences."""
    if direction == "lower":
        low, high, margin = -high, -low, -margin
    return "holds" if low > margin else "contradicted" if high < margin else "undecided"


def _values(rows: pd.DataFrame, method: str, metric: str) -> pd.Series:
    """One value per seed."""
    chosen = rows[(rows["method"] == method) & (rows["metric"] == metric)]
    return chosen.set_index("seed")["value"].sort_index()


def evaluate_test(rows: pd.DataFrame, test: ClaimTest, proxy: str, level: float) -> list[dict[str, Any]]:
    """One result per method that ``against`` matches; none where a side or a common seed is missing.

    Args:
        rows: last-step scores of one base and task on the task's own suite.
    """
    metric = proxy if test.metric == "proxy" else test.metric
    names = sorted(m for m in set(rows["method"]) if fnmatch.fnmatch(m, test.against) and m != test.method)
    results = []
    for name in names:
        difference = (_values(rows, test.method, metric) - _values(rows, name, metric)).dropna()
        if difference.empty:
            continue
        interval = bootstrap_interval(difference.to_numpy(), level)
        results.append(
            {
                "metric": metric,
                "method": test.method,
                "against": name,
                "direction": test.direction,
                "margin": test.margin,
                "difference": interval.mean,
                "low": interval.low,
                "high": interval.high,
                "seeds": interval.seeds,
                # One seed has no interval, and decides nothing.
                "verdict": judge(interval.low, interval.high, test.direction, test.margin)
                if interval.seeds > 1
                else "undecided",
            }
        )
    return results


def combine(verdicts: list[Verdict]) -> Verdict:
    """All hold: holds. One is contradicted: contradicted. Otherwise undecided."""
    if "contradicted" in verdicts:
        return "contradicted"
    return "holds" if all(v == "holds" for v in verdicts) else "undecided"


def evaluate(
    scores: pd.DataFrame,
    claims: dict[str, Claim],
    proxies: dict[str, str],
    suites: dict[str, str],
    level: float = 0.95,
) -> list[dict[str, Any]]:
    """One entry per claim, base and task where every test of the claim has its rows.

    Args:
        scores: tidy scores.
        proxies, suites: proxy metric and own suite of each task.
    """
    last = last_step(scores)
    entries = []
    for name, claim in claims.items():
        for (base, task), rows in last.groupby(["base", "task"]):
            if claim.tasks is not None and task not in claim.tasks:
                continue
            own = rows[rows["suite"] == suites[task]]
            found = [evaluate_test(own, test, proxies[task], level) for test in claim.tests]
            if not all(found):
                continue
            results = [result for part in found for result in part]
            entries.append(
                {
                    "claim": name,
                    "text": claim.text,
                    "source": claim.source,
                    "base": base,
                    "task": task,
                    "verdict": combine([r["verdict"] for r in results]),
                    "tests": results,
                }
            )
    return entries


def to_markdown(entries: list[dict[str, Any]], claims: dict[str, Claim]) -> str:
    """A row per claim and task, the tests beneath each other, and what could not be judged."""
    titles = ("claim", "task", "verdict", "test", "difference", "seeds")
    lines = [[Text(t) for t in titles]]
    for entry in entries:
        head = f"{entry['claim']} {entry['text']}", entry["task"], entry["verdict"]
        for number, test in enumerate(entry["tests"]):
            sign = ">" if test["direction"] == "higher" else "<"
            wanted = f"{test['metric']}: {test['method']} − {test['against']} {sign} {test['margin']:g}"
            interval = f" [{decimal(test['low'], 3)}, {decimal(test['high'], 3)}]"
            cells = head if number == 0 else ("", "", "")
            lines.append(
                [
                    *(Text(c) for c in cells),
                    Text(wanted),
                    Text(decimal(test["difference"], 3), "", interval),
                    Text(str(test["seeds"])),
                ]
            )
    judged = {entry["claim"] for entry in entries}
    missing = [name for name in claims if name not in judged]
    caption = ["Differences are paired by seed, with 95 % bootstrap intervals over seeds."]
    if missing:
        caption.append(f"Not judged, for lack of rows or metrics: {', '.join(missing)}.")
    return markdown("The papers' claims", [("Verdicts", lines)], caption)


def write(scores: Path, settings: Path, claims: Path, out: Path) -> None:
    """``out`` (.md) and the same in JSON beside it."""
    table, rendering, stated = pd.read_parquet(scores), read_yaml(settings), load(claims)
    known = set(rendering["methods"])
    if not known:
        raise ConfigError(f"{settings}: no methods")
    suites = {task: suite["name"] for task, suite in rendering["suites"].items()}
    entries = evaluate(table, stated, rendering["proxies"], suites)
    with replacing(out.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(entries, indent=1, ensure_ascii=False) + "\n")
    with replacing(out) as temporary:
        temporary.write_text(to_markdown(entries, stated))
