"""The papers' claims as tests over what is stored: effect, interval and a computed verdict per base and task.

A claim is reproduced where every one of its tests is. A test compares a method with another one, or with a
number; differences are paired by seed, because methods of one seed share prompts and noise, and their
interval is a bootstrap over seeds and over the prompts within a seed (``reporting/statistics.py``):

    reproduced        the whole interval lies beyond the margin in the claimed direction
    not reproduced    the whole interval lies on the other side
    inconclusive      neither, or one seed alone, or no runs
    not testable here the instrument's required checks do not hold there (``reporting/instrument.py``)

Where training on shuffled rewards drifts, gold, unseen metrics and diversity are judged against that control
at the same step instead of against the untrained model. A claim that holds by construction is shown and not
judged. No verdict can be written by hand: the file of claims has no field for one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from core.files import write_text
from evaluation.scores import BySeed
from reporting.claim_tables import caption, to_tables
from reporting.claim_tests import (
    BY_CONSTRUCTION,
    KINDS,
    MIXTURE,
    UNTESTABLE,
    Claim,
    Claims,
    ClaimTest,
    Verdict,
    load,
)
from reporting.evidence import Evidence
from reporting.html import html
from reporting.standing import Instrument, Standing
from reporting.statistics import bootstrap_interval, paired_differences, smallest_effect
from reporting.table_formats import markdown

NO_INSTRUMENT = Instrument()
NO_SETTING = "no setting of the Gaussian mixture passes its checks"


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


def _read(evidence: Evidence, test: ClaimTest, kind: str, name: str, rival: str | None, control: str):
    """Differences by seed and the rival's values. Runs of the negative control count at our own step."""
    at = evidence.steps(name, test.method) if rival is not None and rival == control else None
    if kind == "vote":
        found = evidence.votes(name, test.method, rival, at)
        return np.array([found[s] for s in sorted(found)]), {}
    read = {
        "metric": lambda method, at=None: evidence.score(name, method, at),
        "history": lambda method, at=None: evidence.trained(name, method, test.over),
        "mixture": lambda method, at=None: evidence.mixed(name, method),
    }[kind]
    ours = read(test.method)
    theirs = {s: 0.0 for s in ours} if rival is None else read(rival, at)
    return paired_differences(ours, theirs), theirs


def _drifts(evidence: Evidence, kind: str, name: str) -> bool:
    """Whether a metric is one that drift moves: gold, unseen, diversity, or votes by such a metric."""
    roles = ("gold", "unseen", "diversity")
    return kind == "vote" or (kind == "metric" and any(name in evidence.metrics(role) for role in roles))


def evaluate_test(
    evidence: Evidence,
    test: ClaimTest,
    groups: dict[str, list[str]],
    level: float,
    instrument: Instrument,
    standing: Standing | None = None,
) -> list[dict[str, Any]]:
    """One result per metric of a group and method that ``against`` matches; none where runs are absent."""
    kind = next(k for k in KINDS if getattr(test, k) is not None)
    control, rivals = instrument.shuffled, [None]
    if test.against is not None:
        known = evidence.methods(test.against, without=instrument.controls)
        rivals = [m for m in known if m != test.method]
    relative = standing is not None and standing.reading == "against the control"
    results = []
    for name in groups.get(getattr(test, kind), [getattr(test, kind)]):
        for rival in rivals:
            instead = relative and rival == instrument.untrained and _drifts(evidence, kind, name)
            rival = control if instead else rival
            values, theirs = _read(evidence, test, kind, name, rival, control)
            if not values.size:
                continue
            margin = _margin(test, theirs) if theirs else test.margin
            interval = bootstrap_interval(values, level)
            same_step = " at the same step" * (rival is not None and rival == control)
            told = _describe(kind, name, test, test.method, rival and rival + same_step, margin)
            results.append(
                {
                    "test": told + f" (instead of {instrument.untrained})" * instead,
                    "effect": interval.mean,
                    "interval": [interval.low, interval.high],
                    "resolvable": smallest_effect(values, level),
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


def _head(name: str, claim: Claim, base: str | None, task: str | None) -> dict[str, Any]:
    head = {"id": name, "statement": claim.statement, "source": claim.source, "base": base, "task": task}
    return {**head, "by_construction": claim.by_construction, "caveat": claim.caveat}


def _entry(
    name: str,
    claim: Claim,
    where: tuple[str, str],
    results: list[dict[str, Any]],
    standing: Standing | None,
) -> dict[str, Any]:
    """``test``, ``effect``, ``interval``, ``resolvable`` and ``seeds`` are those of the test that decided."""
    verdict = combine([r["verdict"] for r in results])
    deciding = next(r for r in results if r["verdict"] == verdict)
    decided = {key: deciding[key] for key in ("test", "effect", "interval", "resolvable", "seeds")}
    untestable = standing is not None and standing.reading == "not testable"
    if claim.by_construction or untestable:
        # What was measured stays, what it would have meant does not.
        verdict = BY_CONSTRUCTION if claim.by_construction else UNTESTABLE
        results = [{**r, "verdict": verdict} for r in results]
    told = {"instrument": standing.text, "reason": standing.reason} if standing else {}
    return {**_head(name, claim, *where), **decided, "verdict": verdict, **told, "tests": results}


def _absent(name: str, claim: Claim, reason: str) -> dict[str, Any]:
    """A claim that was judged nowhere."""
    nothing = {"test": None, "effect": None, "interval": None, "resolvable": None, "seeds": 0}
    verdict = BY_CONSTRUCTION if claim.by_construction else "inconclusive"
    if reason == NO_SETTING:
        verdict = UNTESTABLE
    return {**_head(name, claim, None, None), **nothing, "verdict": verdict, "missing": reason, "tests": []}


def _lacking(claim: Claim, blocks: list[tuple[tuple[str, str], Evidence]]) -> str:
    """Why a claim was judged nowhere, in one line."""
    if any(test.mixture for test in claim.tests):
        if blocks:
            return NO_SETTING
        return "the Gaussian mixture has not been run"
    ran = {m for _, evidence in blocks for m in evidence.methods("*")}
    needed = [t for t in claim.tests if not t.optional]
    wanted = dict.fromkeys(m for t in needed for m in (t.method, t.against) if m)
    absent = [m for m in wanted if "*" not in m and m not in ran]
    if absent:
        return f"no runs of {', '.join(absent)}"
    return f"no task has what every test needs: {', '.join(wanted)}"


def _held(test: ClaimTest, results: list, instrument: Instrument, standing: Standing | None) -> bool:
    """Whether a test has its runs or can do without them."""
    # Without its controls a place is not testable, and its claims say so instead of naming the control.
    untestable = standing is not None and standing.reading == "not testable"
    return bool(results) or test.optional or (untestable and test.against in instrument.controls)


def evaluate(
    stated: Claims,
    blocks: list[tuple[tuple[str, str], Evidence]],
    mixture: pd.DataFrame | None = None,
    instrument: Instrument = NO_INSTRUMENT,
) -> list[dict[str, Any]]:
    """One entry per claim, base and task where every test that is not optional has its runs, else one that
    says why.

    Args:
        blocks: ((base, task), evidence), the main base first.
        mixture: scores of the Gaussian mixture, whose claims need no instrument.
        instrument: the verdicts of ``results/instrument.json``; the default ties claims to no check.
    """
    first = blocks[0][0][0] if blocks else None
    whole = [] if mixture is None else [((MIXTURE, MIXTURE), Evidence(pd.DataFrame(), mixture=mixture))]
    entries = []
    for name, claim in stated.claims.items():
        of_mixture, found = any(test.mixture for test in claim.tests), []
        for place, evidence in whole if of_mixture else blocks:
            if claim.tasks is not None and place[1] not in claim.tasks:
                continue
            tests = [t for t in claim.tests if t.bases in ("all", "first" if place[0] == first else "others")]
            standing, (groups, level) = instrument.at(place), (stated.groups, stated.level)
            results = [evaluate_test(evidence, t, groups, level, instrument, standing) for t in tests]
            held = [_held(t, r, instrument, standing) for t, r in zip(tests, results, strict=True)]
            if any(results) and all(held):
                # Against the base and against the control are one test where the control stands for the base.
                single: dict[tuple, dict[str, Any]] = {}
                for result in (r for part in results for r in part):
                    single.setdefault(result["test"].split(" (instead of ")[0], result)
                found.append(_entry(name, claim, place, list(single.values()), standing))
        entries += found or [_absent(name, claim, _lacking(claim, whole if of_mixture else blocks))]
    return entries


def write(
    blocks: list[tuple[tuple[str, str], Evidence]],
    mixture: pd.DataFrame | None,
    claims: Path,
    out: Path,
    instrument: Instrument = NO_INSTRUMENT,
) -> None:
    """``out`` (.md), and the same in JSON and HTML beside it."""
    stated = load(claims)
    entries = evaluate(stated, blocks, mixture, instrument)
    write_text(out.with_suffix(".json"), json.dumps(entries, indent=1, ensure_ascii=False) + "\n")
    shown = "The papers' claims", to_tables(entries), caption(entries, stated.level)
    write_text(out.with_suffix(".html"), html(*shown))
    write_text(out, markdown(*shown))
