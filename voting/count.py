"""From votes to preferences: Delta-Vote, Bradley-Terry strengths, agreement of voters."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import expit

from reporting.statistics import Interval, bootstrap_interval
from voting.session import Session

PLACE = ["base", "task", "suite", "seed", "prompt", "image"]
COLUMNS = ["voter", *PLACE, "method_a", "method_b", "chosen", "time"]  # chosen: a, b, tie or bad
POINTS = {"a": 1.0, "b": -1.0, "tie": 0.0, "bad": 0.0}
LEVEL, RESAMPLES = 0.95, 1000
RIDGE = 0.05  # of the log strengths, so that one who was never beaten has a finite one


def table(votes: list[dict], session: Session) -> pd.DataFrame:
    """One row for each vote, with the methods it was between; ``COLUMNS``."""
    rows = []
    for vote in votes:
        pair = session.pairs.get(vote["pair"])
        if pair is None:
            continue  # of a session that is not this one
        chosen = {"first": "a", "second": "b"}.get(vote["chosen"], vote["chosen"])
        place = {name: getattr(pair, name) for name in (*PLACE, "method_a", "method_b")}
        rows.append({"voter": vote["voter"], **place, "chosen": chosen, "time": vote["time"]})
    return pd.DataFrame(rows, columns=COLUMNS)


def delta_votes(votes: pd.DataFrame) -> pd.DataFrame:
    """For each two methods: per cent of the votes for b minus those for a (DDRL, arXiv 2512.04332).

    Below 0 a is preferred. Intervals are over prompts, whose votes are averaged first.
    """
    rows = []
    for (a, b), mine in votes.groupby(["method_a", "method_b"], sort=False):
        points = -100 * mine["chosen"].map(POINTS)
        found: Interval = bootstrap_interval(points.groupby(mine["prompt"]).mean().to_numpy()[None], LEVEL)
        shares = mine["chosen"].value_counts(normalize=True)
        rows.append(
            {"method_a": a, "method_b": b, "votes": len(mine), "voters": mine["voter"].nunique()}
            | {"delta_vote": found.mean, "low": found.low, "high": found.high}
            | {f"share_{name}": float(shares.get(name, 0.0)) for name in POINTS}
        )
    return pd.DataFrame(rows)


def strengths(votes: pd.DataFrame) -> pd.DataFrame:
    """Bradley-Terry log strengths of the methods, 0 in the mean, with bootstrap intervals over prompts.

    P(a beats b) = 1 / (1 + exp(s_b - s_a)); a tie, or both bad, counts as half a win for each.
    """
    methods = list(dict.fromkeys([*votes["method_a"], *votes["method_b"]]))
    counts = _wins(votes, methods)
    found, rng = _fit(counts.sum(0)), np.random.default_rng(0)
    draws = [_fit(counts[rng.integers(0, len(counts), len(counts))].sum(0)) for _ in range(RESAMPLES)]
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    result = pd.DataFrame({"method": methods, "strength": found, "low": low, "high": high})
    return result.sort_values("strength", ascending=False, ignore_index=True)


def _wins(votes: pd.DataFrame, methods: list[str]) -> np.ndarray:
    """By prompt how often each method beat each other one, (P, M, M)."""
    number = {method: i for i, method in enumerate(methods)}
    prompts = {prompt: i for i, prompt in enumerate(sorted(votes["prompt"].unique()))}
    wins = np.zeros((len(prompts), len(methods), len(methods)))
    for vote in votes.itertuples():
        a, b, share = number[vote.method_a], number[vote.method_b], (1 + POINTS[vote.chosen]) / 2
        wins[prompts[vote.prompt], a, b] += share
        wins[prompts[vote.prompt], b, a] += 1 - share
    return wins


def _fit(wins: np.ndarray) -> np.ndarray:
    """Log strengths (M,) of the wins (M, M): the penalised likelihood's maximum."""

    def loss(s: np.ndarray) -> tuple[float, np.ndarray]:
        ahead = s[:, None] - s[None, :]
        value = (wins * np.logaddexp(0, -ahead)).sum() + RIDGE / 2 * (s**2).sum()
        pull = wins * expit(-ahead)
        return value, pull.sum(0) - pull.sum(1) + RIDGE * s

    found = minimize(loss, np.zeros(len(wins)), jac=True, method="L-BFGS-B").x
    return found - found.mean()


@dataclass(frozen=True)
class Agreement:
    """Two voters on the pairs that both saw: share of equal votes, and Cohen's kappa.

    Kappa is None where chance explains everything.
    """

    one: str
    other: str
    pairs: int
    equal: float
    kappa: float | None


def agreement(votes: pd.DataFrame) -> list[Agreement]:
    """Of every two voters with a pair in common. Who prefers which method counts, not the side."""
    keys = [*PLACE, "method_a", "method_b"]
    found = []
    for one, other in itertools.combinations(sorted(votes["voter"].unique()), 2):
        mine, theirs = (votes[votes["voter"] == name].set_index(keys)["chosen"] for name in (one, other))
        both = pd.concat([mine, theirs], axis=1, join="inner", keys=["one", "other"])
        if both.empty:
            continue
        equal = float((both["one"] == both["other"]).mean())
        shares = [both[name].value_counts(normalize=True) for name in ("one", "other")]
        chance = float(shares[0].mul(shares[1], fill_value=0).sum())
        kappa = None if chance == 1 else (equal - chance) / (1 - chance)
        found.append(Agreement(one, other, len(both), equal, kappa))
    return found
