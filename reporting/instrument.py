"""Controls before claims: whether the suite can tell exploitation from drift, per base model and task.

``results/instrument.json`` is the one source of these verdicts: claims and captions read them there
(``reporting/standing.py``). What is checked is in ``reporting/instrument_checks.py``, the thresholds in
``config/instrument.yaml``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from core.files import write_text
from reporting.evidence import Evidence
from reporting.html import html
from reporting.instrument_checks import CHECKS, EXPLOIT, Verdict
from reporting.instrument_settings import InstrumentConfig, load
from reporting.standing import Place, Standing
from reporting.table_formats import DASH, Text, decimal, markdown

TITLE = "The instrument: controls before claims"
NO_MARK = "no pass mark"


def check(block: tuple[Place, Evidence], config: InstrumentConfig) -> list[dict[str, Any]]:
    """One entry per check that applies to the base model and task."""
    (base, task), evidence = block
    planted = EXPLOIT in evidence.metrics("proxy")  # elsewhere it is one more thing that drift may do
    entries = []
    for name, measure in CHECKS.items():
        if name == "exploit" and not planted:
            continue
        found = measure(evidence, config, config.of(task))
        verdict, reason = found.judged(config.seeds)
        entries.append(
            {
                "base": base,
                "task": task,
                "check": name,
                "verdict": verdict,
                "reason": reason,
                "seeds": min((p.seeds for p in found.parts), default=0),
                "measured": [part._asdict() for part in found.parts],
            }
        )
    return entries


def standing(entries: list[dict[str, Any]], config: InstrumentConfig) -> Standing:
    """What the checks of one base model and task mean for its claims."""
    verdicts = {e["check"]: e["verdict"] for e in entries}
    lacking = {}
    for key, need in config.required.model_dump(exclude_none=True).items():
        name = key.replace("_", " ")
        if verdicts[name] == "not measured" or (need == "passes" and verdicts[name] != "passes"):
            lacking[name] = next(e["reason"] for e in entries if e["check"] == name)
    if lacking:
        short = ", ".join(f"{name} {verdicts[name]}" for name in lacking)
        reason = "; ".join(f"{name} {verdicts[name]}: {why}" for name, why in lacking.items())
        return Standing("not testable", f"not testable ({short})", reason)
    # A check that no claim needs is named all the same: the reader decides what it is worth.
    other = [
        f"{name} {verdict}" for name, verdict in verdicts.items() if verdict in ("fails", "not measured")
    ]
    if verdicts["negative control"] == "fails":
        other.remove("negative control fails")
        said = ", ".join(["judged relative to its control", *other])
        reason = next(e["reason"] for e in entries if e["check"] == "negative control")
        return Standing("against the control", said, reason)
    return Standing("against base", "passes" + (f", but {', '.join(other)}" if other else ""))


def evaluate(blocks: list[tuple[Place, Evidence]], config: InstrumentConfig) -> dict[str, Any]:
    """What ``results/instrument.json`` holds. ``blocks``: as ``evidence_of`` makes them."""
    checked = {block[0]: check(block, config) for block in blocks}
    standings = []
    for (base, task), entries in checked.items():
        found = standing(entries, config)
        standings.append(
            {"base": base, "task": task, "reading": found.reading, "text": found.text, "reason": found.reason}
        )
    return {
        "rows": config.rows.model_dump(),
        "controls": config.controls,
        "standings": standings,
        "checks": [entry for entries in checked.values() for entry in entries],
    }


def _place(entry: dict[str, Any]) -> list[Text]:
    return [Text(entry["base"]), Text(entry["task"])]


def _part(part: dict[str, Any]) -> str:
    interval = part["interval"]
    shown = f" [{decimal(interval[0], 3)}, {decimal(interval[1], 3)}]" if interval else ""
    rest = [f" {part['where']}"] * bool(part["where"]) + [f", {part['threshold']}"] * bool(part["threshold"])
    return f"{part['what']} {decimal(part['value'], 3)}{shown}{''.join(rest)}"


def to_tables(found: dict[str, Any]) -> list[tuple[str, list[list[Text]]]]:
    """What the checks mean for claims, one line per base and task, and one line per check beneath."""
    meaning = [[Text(t) for t in ("base", "task", "claims", "because")]]
    meaning += [[*_place(s), Text(s["text"]), Text(s["reason"] or DASH)] for s in found["standings"]]
    header = ("base", "task", "check", "measured [interval], threshold", "seeds", "verdict", "reason")
    checks = [[Text(t) for t in header]]
    for entry in found["checks"]:
        measured = "; ".join(map(_part, entry["measured"])) or DASH
        cells = [entry["check"], measured, str(entry["seeds"])]
        verdict = Text(entry["verdict"], "bold") if entry["verdict"] else Text(NO_MARK)
        why = entry["reason"] if entry["verdict"] else ""
        checks.append([*_place(entry), *map(Text, cells), verdict, Text(why or DASH)])
    return [("What can be judged", meaning), ("Checks", checks)]


def caption(found: dict[str, Any], config: InstrumentConfig) -> list[str]:
    """Counts and how to read the lines."""
    verdicts = [e["verdict"] for e in found["checks"]]
    counts = [f"{v}: {verdicts.count(v)}" for v in Verdict.__args__]
    return [
        "; ".join([*counts, f"{NO_MARK}: {verdicts.count(None)}"]) + ".",
        f"Changes are means over seeds, paired by seed, with {config.level:.0%} bootstrap intervals; "
        f"histories are read in {config.windows} windows. Negative control: training on rewards shuffled "
        "within each group, the furthest from its start anywhere on the way. Plateau: KL-free training ends "
        "on its best proxy. Oracle: training on gold. Exploit: the planted shortcut. Resolution: half the "
        "width of Student's interval over seeds. Thresholds: config/instrument.yaml; verdicts are computed.",
        "A claim of a base model and task whose required checks do not hold is not testable there. Where the "
        "negative control is not flat, gold, unseen metrics and diversity are judged against the control at "
        "the same step instead of against the untrained model.",
    ]


def write(blocks: list[tuple[Place, Evidence]], settings: Path, out: Path) -> None:
    """``out`` (.md), and the same in JSON and HTML beside it."""
    config = load(settings)
    found = evaluate(blocks, config)
    write_text(out.with_suffix(".json"), json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    shown = TITLE, to_tables(found), caption(found, config)
    write_text(out.with_suffix(".html"), html(*shown))
    write_text(out, markdown(*shown))
