"""The checks of the instrument on one base model and task, each with what it measured and a computed verdict.

Changes are means over seeds, paired by seed. The negative control is looked at over its whole way,
since drift that comes and goes is drift as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from evaluation.scores import BySeed
from reporting.evidence import Evidence, Windows
from reporting.instrument_settings import InstrumentConfig, Thresholds
from reporting.statistics import Interval, bootstrap_interval, paired_differences, smallest_effect
from reporting.table_formats import decimal

Verdict = Literal["passes", "fails", "not measured"]
EXPLOIT = "exploit_rate"


class Rule(NamedTuple):
    """A threshold in words and as a test of the mean over seeds and its interval."""

    text: str
    holds: Callable[[Interval], bool]


def within(most: float) -> Rule:
    return Rule(f"within ±{most:g}", lambda i: abs(i.mean) <= most)


def not_clearly_beyond(most: float) -> Rule:
    return Rule(f"interval not beyond ±{most:g}", lambda i: i.low <= most and i.high >= -most)


def at_most(most: float) -> Rule:
    return Rule(f"≤ {most:g}", lambda i: i.mean <= most)


def at_least(least: float) -> Rule:
    return Rule(f"≥ {least:g}", lambda i: i.mean >= least)


def clearly(least: float) -> Rule:
    return Rule(f"≥ {least:g}, interval above 0", lambda i: i.mean >= least and i.low > 0)


LOWER = Rule("interval below 0", lambda i: i.high < 0)


class Measured(NamedTuple):
    """One quantity: its value, interval and threshold; ``passes`` is None without a pass mark."""

    what: str
    value: float
    interval: tuple[float, float] | None
    threshold: str
    passes: bool | None
    seeds: int
    where: str = ""


class Quantity(NamedTuple):
    """A metric that is watched: what it is to the task, its name, where it is logged, and its unit."""

    kind: Literal["proxy", "gold", "unseen"]
    metric: str
    logged: str
    unit: float

    @property
    def label(self) -> str:
        return f"{self.metric} (in spreads)" if self.kind == "unseen" else self.kind


@dataclass
class Found:
    """What one check has measured, and what it lacked."""

    parts: list[Measured] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def add(self, part: Measured | None, missing: str) -> None:
        """A part, or what was missing for it."""
        if part is None:
            self.missing.append(missing)
        else:
            self.parts.append(part)

    def judged(self, least_seeds: int) -> tuple[Verdict | None, str]:
        """The verdict (None: no pass mark) and its reason."""
        few = [p for p in self.parts if p.seeds < least_seeds]
        failing = [p for p in self.parts if p.passes is False and p not in few]
        if failing:
            said = (f"{p.what} {decimal(p.value, 3)}, needs {p.threshold}" for p in failing)
            return "fails", "; ".join(said)
        if self.missing or not self.parts:
            return "not measured", "; ".join(dict.fromkeys(self.missing))
        if few:
            return "not measured", f"{min(p.seeds for p in few)} seed(s), of at least {least_seeds}"
        return (None, "no pass mark") if all(p.passes is None for p in self.parts) else ("passes", "")


def quantities(evidence: Evidence, untrained: str) -> list[Quantity]:
    """The proxy and gold, or the unseen metrics in the untrained model's spread where a task has no gold."""
    found = [Quantity("proxy", "proxy", "reward/proxy_mean", 1.0)]
    found += [Quantity("gold", m, f"reward/{m}_mean", 1.0) for m in evidence.metrics("gold")]
    if len(found) > 1:
        return found
    for metric in evidence.metrics("unseen"):
        values = evidence.score(metric, untrained)
        spread = float(np.concatenate([np.ravel(v) for v in values.values()]).std()) if values else 0.0
        if spread > 0:
            found.append(Quantity("unseen", metric, f"reward/{metric}_mean", spread))
    return found


def _measured(
    what: str, values: np.ndarray, level: float, rule: Rule | None = None, where: str = ""
) -> Measured | None:
    """``values``: one per seed, or per seed and prompt; None for no seed."""
    if not values.size:
        return None
    interval = bootstrap_interval(values, level)
    limit, passes = (rule.text, rule.holds(interval)) if rule else ("", None)
    return Measured(what, interval.mean, interval[1:3], limit, passes, interval.seeds, where)


def _drift(windows: Windows, unit: float) -> tuple[np.ndarray, str]:
    """The window furthest from the first in the mean over seeds: changes by seed, and which it is."""
    if len(windows.spans) < 2:
        return np.array([]), ""
    changes = np.array([(v - v[0]) / unit for v in windows.by_seed.values()])
    worst = int(np.abs(changes.mean(axis=0)).argmax())
    return changes[:, worst], "iterations {}–{}".format(*windows.spans[worst])


def _paired(evidence: Evidence, q: Quantity, ours: str, theirs: BySeed, at=None) -> np.ndarray:
    return paired_differences(evidence.score(q.metric, ours, at), theirs) / q.unit


def _worst_step(evidence: Evidence, q: Quantity, method: str, untrained: str) -> tuple[np.ndarray, str]:
    """The evaluated step at which a method is furthest from the untrained model."""
    theirs, worst, where = evidence.score(q.metric, untrained), np.array([]), ""
    for step in evidence.evaluated(q.metric, method):
        at = dict.fromkeys(theirs, step)
        change = _paired(evidence, q, method, theirs, at)
        if change.size and (not worst.size or abs(change.mean()) > abs(worst.mean())):
            worst, where = change, f"step {step}"
    return worst, where


def negative_control(evidence: Evidence, config: InstrumentConfig, thresholds: Thresholds) -> Found:
    """Training on shuffled rewards leaves proxy and gold where they are, all the way."""
    found, rows = Found(), config.rows
    watched = quantities(evidence, rows.untrained)
    if rows.shuffled not in evidence.methods("*"):
        return Found(missing=[f"no runs of {rows.shuffled}"])
    for q in watched:
        most = getattr(thresholds.negative_control, q.kind)
        rule = within(most)
        sources = {
            "in training": _drift(evidence.windows(q.logged, rows.shuffled, config.windows), q.unit),
            "on the test set": _worst_step(evidence, q, rows.shuffled, rows.untrained),
        }
        known = {source: v for source, v in sources.items() if v[0].size}
        for source, (values, where) in known.items():
            what = f"change of {q.label} {source}"
            # Each look at a monitored reward sees a few other prompts, which alone moves it by more than the
            # threshold. The test set has the same prompts and noise before and after.
            noisy = source == "in training" and q.kind != "proxy" and len(known) > 1
            limit = not_clearly_beyond(most) if noisy else rule
            found.parts.append(_measured(what, values, config.level, limit, f"({where})"))
        # The proxy of every iteration is always logged; other rewards are not where nobody monitors them.
        if not known or (q.kind == "proxy" and "in training" not in known):
            found.missing.append(f"no {q.label} of {rows.shuffled} in training or at the test")
    if len(watched) < 2:
        found.missing.append(f"no gold, and no unseen metrics of {rows.untrained}")
    return found


def plateau(evidence: Evidence, config: InstrumentConfig, thresholds: Thresholds) -> Found:
    """KL-free training ends on the highest proxy that it reached, and has all but ceased to rise."""
    method, limits = config.rows.kl_free, thresholds.plateau
    spans, by_seed = evidence.windows("reward/proxy_mean", method, config.windows)
    if len(spans) < config.windows:
        lacking = f"only {len(spans)} steps logged" if spans else "no training history"
        return Found(missing=[f"{lacking} of {method}"])
    values = np.array(list(by_seed.values()))
    best = int(values.mean(axis=0).argmax())
    last, earlier = values[:, -1], values[:, -3]
    parts = [
        ("proxy, best window minus last", values[:, best] - last, limits.fallen, spans[best]),
        ("proxy, last window minus the one two before", last - earlier, limits.rising, spans[-3]),
    ]
    found = Found()
    for what, changes, most, span in parts:
        where = "(iterations {}–{})".format(*span)
        found.parts.append(_measured(what, changes, config.level, at_most(most), where))
    return found


def oracle(evidence: Evidence, config: InstrumentConfig, thresholds: Thresholds) -> Found:
    """Trained on gold, the model does clearly better than untrained: the ceiling is not where it starts."""
    rows, rule, found = config.rows, clearly(thresholds.oracle.gold), Found()
    gold = [q for q in quantities(evidence, rows.untrained) if q.kind == "gold"]
    for q in gold:
        change = _paired(evidence, q, rows.oracle, evidence.score(q.metric, rows.untrained))
        part = _measured(f"{q.label}: {rows.oracle} − {rows.untrained}", change, config.level, rule)
        found.add(part, f"no {q.label} of {rows.oracle} or {rows.untrained}")
    return found if gold else Found(missing=["the task has no gold"])


def _kl_free_against(evidence: Evidence, q: Quantity, config: InstrumentConfig) -> dict[str, np.ndarray]:
    """KL-free training minus the untrained model and minus the control at the same step, by seed."""
    rows = config.rows
    at = evidence.steps(q.metric, rows.kl_free)
    rivals = {
        rows.untrained: evidence.score(q.metric, rows.untrained),
        rows.shuffled: evidence.score(q.metric, rows.shuffled, at),
    }
    return {rival: _paired(evidence, q, rows.kl_free, theirs) for rival, theirs in rivals.items()}


def exploit(evidence: Evidence, config: InstrumentConfig, thresholds: Thresholds) -> Found:
    """The planted shortcut is learnt by KL-free training and costs gold, beyond drift."""
    rows, limits, found = config.rows, thresholds.exploit, Found()
    # A shortcut too weak to be learnt for certain is reported and not judged.
    rules = {rows.untrained: at_most(limits.base_rate), rows.kl_free: at_least(limits.learnt or 0)}
    marked = limits.learnt is not None
    for method, rule in rules.items():
        values = np.array(list(evidence.score(EXPLOIT, method).values()))
        part = _measured(f"rate of {method}", values, config.level, rule if marked else None)
        found.add(part, f"no {EXPLOIT} of {method}")
    gold = [q for q in quantities(evidence, rows.untrained) if q.kind == "gold"]
    for q in gold:
        for rival, change in _kl_free_against(evidence, q, config).items():
            what = f"{q.label}: {rows.kl_free} − {rival}"
            part = _measured(what, change, config.level, LOWER if marked else None)
            found.add(part, f"no {q.label} of {rows.kl_free} or of {rival} at the same step")
    if not gold:
        found.missing.append("the task has no gold")
    return found


def resolution(evidence: Evidence, config: InstrumentConfig, thresholds: Thresholds) -> Found:
    """The seeds agree well enough to tell the effects judged from chance."""
    rows, found = config.rows, Found()
    for q in quantities(evidence, rows.untrained):
        rule = at_most(getattr(thresholds.resolution, q.kind))
        for rival, change in _kl_free_against(evidence, q, config).items():
            least, part = smallest_effect(change, config.level) if change.size else None, None
            if least is not None:
                passes = rule.holds(Interval(least, least, least, len(change)))
                what = f"smallest effect in {q.label}: {rows.kl_free} − {rival}"
                part = Measured(what, least, None, rule.text, passes, len(change))
            found.add(part, f"fewer than two seeds of {rows.kl_free} and {rival}")
    return found


def random_gate(evidence: Evidence, config: InstrumentConfig, thresholds: Thresholds) -> Found:
    """Whether it matters which samples are gated; without a pass mark."""
    rows, found = config.rows, Found()
    for q in quantities(evidence, rows.untrained):
        change = _paired(evidence, q, rows.random_gate, evidence.score(q.metric, rows.gate))
        part = _measured(f"{q.label}: {rows.random_gate} − {rows.gate}", change, config.level)
        found.add(part, f"no {q.label} of {rows.random_gate} or {rows.gate}")
    return found


CHECKS = {
    "negative control": negative_control,
    "plateau": plateau,
    "oracle": oracle,
    "exploit": exploit,
    "resolution": resolution,
    "random gate": random_gate,
}
