"""Methods over all tasks at once: interquartile mean, and probability of improvement over a named baseline.

Metrics have different scales, so a value counts as its change from the base model's mean, in standard
deviations over the runs of its task. Methods that did not run on every task of the base are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from evaluation.scores import last_step
from reporting.statistics import Interval, improvement_interval, stratified_bootstrap
from reporting.table_files import write_table
from reporting.table_formats import Text, decimal

TITLE = "All tasks together"
MEASURES = {"proxy": "proxy", "unseen": "unseen", "gold": "gold", "diversity": "diversity"}
ByMethod = dict[str, dict[str, list[float]]]  # method -> task -> one value per seed


def change_from_base(rows: pd.DataFrame, base_method: str = "base") -> pd.Series:
    """One number per run from the metrics of ``rows``: (method, seed) -> mean change, in standard deviations.

    Each metric is measured from the base's mean (without a base: from the mean of the runs), in standard
    deviations over the runs. Only metrics that every run has count; raises ``ValueError`` without any.
    """
    wide = rows.pivot(index=["method", "seed"], columns=["suite", "metric"], values="value").dropna(axis=1)
    if wide.empty:
        raise ValueError("no metric that every run of the block has")
    is_base = wide.index.get_level_values("method") == base_method
    centre = (wide[is_base] if is_base.any() else wide).mean()
    spread = wide.std(ddof=0)
    return ((wide - centre) / spread.where(spread > 0, 1.0)).mean(axis=1)


def _of_role(rows: pd.DataFrame, role: str, task: str, proxy: str) -> pd.DataFrame:
    rows = rows[(rows["task"] == task) & (rows["role"] == role)]
    if role == "proxy":
        return rows[rows["metric"] == proxy]
    return rows if role == "unseen" else rows[rows["own"]]


def by_method(final: pd.DataFrame, role: str, proxies, base_method: str) -> ByMethod:
    """Changes from the base for one base model; methods without all of its tasks are left out."""
    found: ByMethod = {}
    tasks = list(dict.fromkeys(final["task"]))
    for task in tasks:
        rows = _of_role(final, role, task, proxies[task])
        if rows.empty:
            return {}
        for method, values in change_from_base(rows, base_method).groupby("method"):
            found.setdefault(method, {})[task] = list(values)
    return {method: of_task for method, of_task in found.items() if len(of_task) == len(tasks)}


def compare(
    scores: pd.DataFrame,
    labels: Mapping[str, str],
    proxies: Mapping[str, str],
    *,
    baseline: str,
    base_method: str,
) -> pd.DataFrame:
    """Columns base, method, label, role, measure (iqm or improvement), mean, low, high, seeds."""
    final, records = last_step(scores), []
    for base, rows in final.groupby("base", sort=False):
        for role in MEASURES:
            values = by_method(rows, role, proxies, base_method)
            for method in (m for m in labels if m in values):
                found: dict[str, Interval] = {"iqm": stratified_bootstrap(values[method])}
                if baseline in values and method != baseline:
                    found["improvement"] = improvement_interval(values[method], values[baseline])
                head = {"base": base, "method": method, "label": labels[method], "role": role}
                records += [{**head, "measure": m, **v._asdict()} for m, v in found.items()]
    columns = ["base", "method", "label", "role", "measure", *Interval._fields]
    return pd.DataFrame(records, columns=columns)


def _lines(compared: pd.DataFrame, baseline: str) -> list[list[Text]]:
    columns = [(r, m) for m in ("iqm", "improvement") for r in MEASURES if r in set(compared["role"])]
    names = {"iqm": "IQM {} ↑", "improvement": "P({} ↑ over " + baseline + ")"}
    lines = [[Text("method"), *(Text(names[m].format(MEASURES[r])) for r, m in columns)]]
    for label, rows in compared.groupby("label", sort=False):
        cells = rows.set_index(["role", "measure"])
        line = [Text(label)]
        for column in columns:
            if column not in cells.index:
                line.append(Text("–"))
                continue
            row = cells.loc[column]
            low, high = decimal(row["low"], 2), decimal(row["high"], 2)
            line.append(Text(decimal(row["mean"], 2), "", f" [{low}, {high}]"))
        lines.append(line)
    return lines


def render(
    compared: pd.DataFrame, labels: Mapping[str, str], baseline: str, out: Path, note: str | None = None
) -> list[Path]:
    """``out/comparison.{csv,md,tex,html}``; nothing where no method ran on all tasks of a base. ``note``: the
    caption's first sentence."""
    if compared.empty:
        return []
    blocks = [
        (f"{base}, all tasks", _lines(rows, labels.get(baseline, baseline)))
        for base, rows in compared.groupby("base", sort=False)
    ]
    caption = [
        *([note] if note else []),
        "Interquartile mean (IQM) over tasks and seeds of the change from the base model, in standard "
        "deviations over the runs of a task, and the probability that a random run improves on one of "
        f"{labels.get(baseline, baseline)}, with 95 % stratified bootstrap intervals over seeds (definitions "
        "of rliable, arXiv 2108.13264). Methods that did not run on every task are left out. "
        f"Seeds: at least {compared['seeds'].min()}.",
    ]
    return write_table(out, "comparison", TITLE, compared, blocks, caption)
