"""The settings that were tried for each task, and the cheapest at which the instrument can be trusted.

Candidates are task files that change another one's training (``extends``). A grid of them trains KL-free GRPO
and the negative control, and nothing whose rank a paper makes a claim about. Each candidate gets the verdicts
of ``reporting/instrument.py``, at its end and at every snapshot as if it had ended there: neither method
knows how long it will run. Of one task's candidates (same base model, proxy and prompts), the setting is the
cheapest in images generated whose negative control and plateau pass.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from core.files import write_text
from reporting import instrument
from reporting.evidence import Evidence, Windows, evidence_in
from reporting.instrument_settings import InstrumentConfig, load
from reporting.results import Results
from reporting.standing import Place
from reporting.table_formats import DASH, Text, decimal, markdown, numbers
from runs.configuration import RunConfig, load_run

NEEDED = ("negative control", "plateau")
SETTINGS = ("learning_rate", "iterations", "prompts_per_iteration", "group_size")


def candidate(
    block: tuple[Place, Evidence],
    run: RunConfig,
    seconds: float,
    config: InstrumentConfig,
    iterations: int | None = None,
) -> dict:
    """One row: settings, cost, what KL-free training and the control did, and the verdicts.

    Args:
        run: any trained run of the base model and task.
        seconds: of one training, the mean over runs.
        iterations: at which the runs are taken to end; without: where they end.
    """
    (base, task), evidence = block
    length = iterations or run.training.iterations
    evidence = evidence.until(length)
    block = ((base, task), evidence)
    checks = {entry["check"]: entry for entry in instrument.check(block, config)}
    kl_free = evidence.windows("reward/proxy_mean", config.rows.kl_free, config.windows)
    proxy = np.array(list(kl_free.by_seed.values())).mean(axis=0)
    rows = config.rows.kl_free, config.rows.shuffled
    gold = {m: evidence.windows("reward/gold_mean", m, config.windows) for m in rows}
    drift = {part["what"]: part["value"] for part in checks["negative control"]["measured"]}
    settings = {name: getattr(run.training, name) for name in SETTINGS} | {"iterations": length}
    return {
        "base": base,
        "of": (run.task_settings.proxy, run.task_settings.prompts),
        "task": task,
        **settings,
        "images": length * run.training.prompts_per_iteration * run.training.group_size,
        "seconds": seconds * length / run.training.iterations,
        "proxy_first": proxy[0],
        "proxy_last": proxy[-1],
        "proxy_best": proxy.max(),
        "gold": {m: _ends(windows) for m, windows in gold.items()},
        "drift_proxy": _largest(drift, "proxy"),
        "drift_gold": _largest(drift, "gold"),
        "verdicts": {name: checks[name]["verdict"] for name in NEEDED},
        "holds": all(checks[name]["verdict"] == "passes" for name in NEEDED),
        "seeds": len(kl_free.by_seed),
        "control_seeds": len(gold[config.rows.shuffled].by_seed),
    }


def _ends(windows: Windows) -> list[float]:
    """First and last window in the mean over seeds; empty where nothing was logged."""
    means = list(windows.by_seed.values())
    return np.mean(means, axis=0)[[0, -1]].tolist() if means else []


def _largest(drift: dict[str, float], of: str) -> float:
    """The change that lies furthest from 0, with its sign; NaN where none was measured."""
    found = [value for what, value in drift.items() if what.startswith(f"change of {of} ")]
    return max(found, key=abs, default=float("nan"))


def chosen(candidates: list[dict[str, Any]]) -> set[tuple[str, str, int]]:
    """Base, task and iterations of the cheapest candidate that holds, for each base, proxy and prompts."""
    found = {}
    for row in sorted(candidates, key=lambda r: (r["images"], r["learning_rate"])):
        if row["holds"]:
            found.setdefault((row["base"], *row["of"]), _name(row))
    return set(found.values())


def _name(row: dict[str, Any]) -> tuple[str, str, int]:
    return row["base"], row["task"], row["iterations"]


def evaluate(stored: Results, config: InstrumentConfig) -> list[dict[str, Any]]:
    """All candidates, those of one task together, the cheapest first."""
    provenances, rows = stored.provenance, []
    for place, evidence in evidence_in(stored):
        runs = sorted(set(evidence.rows["run"]))
        trained = [name for name in runs if provenances[name]["iterations"]]
        seconds = float(np.mean([provenances[name]["wall_seconds"] for name in trained]))
        run = load_run(stored.run(trained[0]))
        for iterations in [*run.snapshots, run.training.iterations]:
            rows.append(candidate((place, evidence), run, seconds, config, iterations))
    return sorted(rows, key=lambda r: (r["base"], r["of"], r["images"], r["learning_rate"]))


def to_tables(rows: list[dict[str, Any]], config: InstrumentConfig) -> list[tuple[str, list[list[Text]]]]:
    best, tables = chosen(rows), []
    header = [
        "learning rate",
        "iterations",
        "images per step",
        "seconds",
        "proxy, first to last tenth (best)",
    ]
    header += ["gold, KL-free", "gold, control", "control: Δ proxy, Δ gold", *NEEDED, "chosen"]
    for of in dict.fromkeys((r["base"], r["of"]) for r in rows):
        lines = [[Text(t) for t in header]]
        for row in (r for r in rows if (r["base"], r["of"]) == of):
            first, last, top = (decimal(row[f"proxy_{k}"], 2) for k in ("first", "last", "best"))
            gold = [
                " to ".join(decimal(v, 2) for v in row["gold"][m]) or DASH
                for m in (config.rows.kl_free, config.rows.shuffled)
            ]
            mark = _name(row) in best
            cells = [f"{row['learning_rate']:g}", str(row["iterations"])]
            cells += [str(row["prompts_per_iteration"] * row["group_size"]), decimal(row["seconds"], 0)]
            cells += [f"{first} to {last} ({top})", *gold]
            cells += [f"{row['drift_proxy']:+.2f}, {row['drift_gold']:+.2f}", *row["verdicts"].values()]
            lines.append([Text(c, "bold" if mark else "") for c in [*cells, "yes" if mark else DASH]])
        base, (proxy, _) = of
        tables.append((f"{base}, proxy {proxy}", lines))
    return tables


def render(stored: Results, settings: Path, out: Path) -> None:
    """``out`` (.md), and the numbers as .csv beside it."""
    config = load(settings)
    rows = evaluate(stored, config)
    seeds, control_seeds = ({row[key] for row in rows} for key in ("seeds", "control_seeds"))
    caption = [
        "Means over seeds used for nothing else: "
        f"KL-free {numbers(seeds)}, control {numbers(control_seeds)}.",
        "Only the untrained model, KL-free GRPO and GRPO on shuffled rewards were run; a run is also read at "
        "each of its snapshots, as if it had ended there. Chosen: the fewest "
        "images whose negative control is flat over the whole run and whose proxy ends on its plateau "
        "(config/instrument.yaml).",
    ]
    write_text(out, markdown("Settings that were tried", to_tables(rows, config), caption))
    flat = [{k: v for k, v in row.items() if k not in ("of", "gold", "verdicts")} for row in rows]
    write_text(out.with_suffix(".csv"), pd.DataFrame(flat).to_csv(index=False, float_format="%.6g"))
