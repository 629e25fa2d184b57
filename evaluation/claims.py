"""The papers' claims as tests over what is stored: effect, interval and a computed verdict per base and task.

A claim is reproduced where every one of its tests is. A test compares a method with another one, or with a
number; differences are paired by seed, because methods of one seed share prompts and noise, and their
interval is a bootstrap over seeds and over the prompts within a seed (``evaluation/statistics.py``):

    reproduced        the whole interval lies beyond the margin in the claimed direction
    not reproduced    the whole interval lies on the other side
    inconclusive      neither, or one seed alone, or no runs

No verdict can be written by hand: the file of claims has no field for one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from evaluation.claim_tests import KINDS, Claim, Claims, ClaimTest, load
from evaluation.evidence import BySeed, Evidence
from evaluation.html import html
from evaluation.image_scores import ByImage
from evaluation.statistics import bootstrap_interval, last_step, paired_differences
from evaluation.table_formats import Text, decimal, markdown
from training.configuration import ConfigError
from training.files import write_text

Verdict = Literal["reproduced", "not reproduced", "inconclusive"]
MIXTURE = "Gaussian mixture"  # where a claim about it stands for a base and a task


def judge(low: float, high: float, test: ClaimTest, margin: float) -> Verdict:
    """The verdict of an interval."""
    if test.direction == "within":
        least, most = test.bounds
        inside, outside = least <= low and high <= most, high < least or low > most
        return "reproduced" if inside else "not reproduced" if outside else "inconclusive"
    if test.direction == "lower":
        low, high, margin = -high, -low, -margin
    return "reproduced" if low > margin else "not reproduced" if high < margin else "inconclusive"


def _describe(kind: str, name: str, test: ClaimTest, method: str, against: str | None, margin: float) -> str:
    what = f"{name}, {test.over}" if kind == "history" else f"Δ-Vote by {name}" if kind == "vote" else name
    who = method if against is None else f"{method} − {against}"
    if kind == "vote":
        who = f"votes for {against} − votes for {method}"
    if test.direction == "within":
        return f"{what}: {who} within {test.bounds[0]:g} to {test.bounds[1]:g}"
    return f"{what}: {who} {'>' if test.direction == 'higher' else '<'} {margin:.3g}"


def _margin(test: ClaimTest, theirs: BySeed) -> float:
    """The margin in the metric's own units."""
    values = np.concatenate([np.ravel(v) for v in theirs.values()])
    if test.margin_share is not None:
        return test.margin_share * abs(float(values.mean()))
    if test.margin_spread is not None:
        return test.margin_spread * float(values.std())
    return test.margin


def evaluate_test(
    evidence: Evidence, test: ClaimTest, groups: dict[str, list[str]], level: float
) -> list[dict[str, Any]]:
    """One result per metric of a group and method that ``against`` matches; none where runs are absent."""
    kind = next(k for k in KINDS if getattr(test, k) is not None)
    read = {
        "metric": evidence.score,
        "history": lambda name, method: evidence.trained(name, method, test.over),
        "mixture": evidence.mixed,
    }.get(kind)
    rivals = (
        [None] if test.against is None else [m for m in evidence.methods(test.against) if m != test.method]
    )
    results = []
    for name in groups.get(getattr(test, kind), [getattr(test, kind)]):
        for rival in rivals:
            margin = test.margin
            if kind == "vote":
                found = evidence.votes(name, test.method, rival)
                values = np.array([found[s] for s in sorted(found)])
            else:
                ours = read(name, test.method)
                theirs = {s: 0.0 for s in ours} if rival is None else read(name, rival)
                values = paired_differences(ours, theirs)
                if theirs:
                    margin = _margin(test, theirs)
            if not values.size:
                continue
            interval = bootstrap_interval(values, level)
            results.append(
                {
                    "test": _describe(kind, name, test, test.method, rival, margin),
                    "effect": interval.mean,
                    "interval": [interval.low, interval.high],
                    "margin": margin,
                    "seeds": interval.seeds,
                    # One seed decides nothing.
                    "verdict": judge(interval.low, interval.high, test, margin)
                    if interval.seeds > 1
                    else "inconclusive",
                }
            )
    return results


def combine(verdicts: list[Verdict]) -> Verdict:
    """All reproduced: reproduced. One not reproduced: not reproduced. Otherwise inconclusive."""
    if "not reproduced" in verdicts:
        return "not reproduced"
    return "reproduced" if all(v == "reproduced" for v in verdicts) else "inconclusive"


def _entry(name: str, claim: Claim, where: tuple[str, str], results: list[dict[str, Any]]) -> dict[str, Any]:
    """``test``, ``effect``, ``interval`` and ``seeds`` are those of the test that decided."""
    verdict = combine([r["verdict"] for r in results])
    deciding = next(r for r in results if r["verdict"] == verdict)
    head = {
        "id": name,
        "statement": claim.statement,
        "source": claim.source,
        "base": where[0],
        "task": where[1],
    }
    decided = {key: deciding[key] for key in ("test", "effect", "interval", "seeds")}
    return {**head, **decided, "verdict": verdict, "tests": results}


def _absent(name: str, claim: Claim, reason: str) -> dict[str, Any]:
    head = {"id": name, "statement": claim.statement, "source": claim.source, "base": None, "task": None}
    nothing = {"test": None, "effect": None, "interval": None, "seeds": 0}
    return {**head, **nothing, "verdict": "inconclusive", "missing": reason, "tests": []}


def _lacking(claim: Claim, blocks: list[tuple[tuple[str, str], Evidence]]) -> str:
    """Why a claim was judged nowhere, in one line."""
    if any(test.mixture for test in claim.tests):
        if blocks:
            return "no setting of the Gaussian mixture passes its checks"
        return "the Gaussian mixture has not been run"
    ran = {m for _, evidence in blocks for m in evidence.methods("*")}
    needed = [t for t in claim.tests if not t.optional]
    wanted = dict.fromkeys(m for t in needed for m in (t.method, t.against) if m)
    absent = [m for m in wanted if "*" not in m and m not in ran]
    if absent:
        return f"no runs of {', '.join(absent)}"
    return f"no task has what every test needs: {', '.join(wanted)}"


def evaluate(
    stated: Claims,
    blocks: list[tuple[tuple[str, str], Evidence]],
    mixture: pd.DataFrame | None = None,
) -> list[dict[str, Any]]:
    """One entry per claim, base and task where every test that is not optional has its runs, else one that
    says why.

    Args:
        blocks: ((base, task), evidence), the main base first.
        mixture: scores of the Gaussian mixture.
    """
    first = blocks[0][0][0] if blocks else None
    whole = [] if mixture is None else [((MIXTURE, MIXTURE), Evidence(pd.DataFrame(), mixture=mixture))]
    entries = []
    for name, claim in stated.claims.items():
        of_mixture, found = any(test.mixture for test in claim.tests), []
        for (base, task), evidence in whole if of_mixture else blocks:
            if claim.tasks is not None and task not in claim.tasks:
                continue
            tests = [t for t in claim.tests if t.bases in ("all", "first" if base == first else "others")]
            results = [evaluate_test(evidence, test, stated.groups, stated.level) for test in tests]
            held = [bool(r) or t.optional for t, r in zip(tests, results, strict=True)]
            if any(results) and all(held):
                found.append(_entry(name, claim, (base, task), [r for part in results for r in part]))
        entries += found or [_absent(name, claim, _lacking(claim, whole if of_mixture else blocks))]
    return entries


def _place(entry: dict[str, Any], bases: set[str]) -> str:
    one_base = len(bases) == 1 or entry["base"] == MIXTURE
    return entry["task"] if one_base else f"{entry['base']}, {entry['task']}"


def to_tables(entries: list[dict[str, Any]]) -> list[tuple[str, list[list[Text]]]]:
    """An overview with one line per claim, and every test beneath."""
    bases = {e["base"] for e in entries} - {None, MIXTURE}
    judged = [e for e in entries if e["tests"]]
    places = list(dict.fromkeys(_place(e, bases) for e in judged))
    overview = [[Text(t) for t in ("claim", *places, "not judged")]]
    for name in dict.fromkeys(e["id"] for e in entries):
        mine = [e for e in entries if e["id"] == name]
        verdicts = {_place(e, bases): e["verdict"] for e in mine if e["tests"]}
        cells = [Text(verdicts.get(place, ""), "bold" if place in verdicts else "") for place in places]
        overview.append([Text(f"{name}: {mine[0]['statement']}"), *cells, Text(mine[0].get("missing", ""))])
    details = [[Text(t) for t in ("claim", "where", "test", "effect", "seeds", "verdict")]]
    for entry, test in ((e, t) for e in judged for t in e["tests"]):
        low, high = (decimal(v, 3) for v in test["interval"])
        effect = Text(decimal(test["effect"], 3), "", f" [{low}, {high}]")
        head = [Text(entry["id"]), Text(_place(entry, bases)), Text(test["test"]), effect]
        details.append([*head, Text(str(test["seeds"])), Text(test["verdict"])])
    return [("Verdicts", overview), ("Tests", details)]


def caption(entries: list[dict[str, Any]], level: float) -> list[str]:
    counts = {v: sum(e["verdict"] == v for e in entries) for v in Verdict.__args__}
    return [
        "; ".join(f"{verdict}: {count}" for verdict, count in counts.items()) + ".",
        f"Differences are paired by seed; intervals are {level:.0%} bootstrap intervals over seeds and over "
        "the prompts within a seed, all seeds sharing the same prompts. With three seeds an interval over "
        "seeds alone reaches from the least to the greatest value. Tests are not corrected for their number. "
        "A claim is reproduced where every test is; verdicts are computed.",
    ]


def write(
    blocks: list[tuple[tuple[str, str], Evidence]],
    mixture: pd.DataFrame | None,
    claims: Path,
    out: Path,
) -> None:
    """``out`` (.md), and the same in JSON and HTML beside it."""
    stated = load(claims)
    entries = evaluate(stated, blocks, mixture)
    write_text(out.with_suffix(".json"), json.dumps(entries, indent=1, ensure_ascii=False) + "\n")
    shown = "The papers' claims", to_tables(entries), caption(entries, stated.level)
    write_text(out.with_suffix(".html"), html(*shown))
    write_text(out, markdown(*shown))


def evidence_of(
    scores: pd.DataFrame,
    images: ByImage,
    history: pd.DataFrame,
    proxies: dict[str, str],
    suites: dict[str, str],
    bases: list[str],
) -> list[tuple[tuple[str, str], Evidence]]:
    """Evidence of every base and task, in the grid's order of bases."""
    last, blocks = last_step(scores), []
    unknown = sorted(set(last["task"]) - set(proxies))
    if unknown:
        raise ConfigError(f"the scores hold the tasks {unknown}; the settings know {sorted(proxies)}")
    for (base, task), rows in sorted(last.groupby(["base", "task"]), key=lambda b: bases.index(b[0][0])):
        mine = history[(history["base"] == base) & (history["task"] == task)]
        evidence = Evidence(rows, suites[task], proxies[task], images, mine)
        blocks.append(((base, task), evidence))
    return blocks
