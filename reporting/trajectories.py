"""Training histories as curves over windows, and what is read off them: levels, turns, chosen checkpoints.

A batch's mean is noisy, and methods differ in speed. So every table and figure about the course of a training
takes its values from here: from means over windows of the rollouts' rewards, each method on the same windows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from evaluation.scores import RUN
from reporting.layout import COURSE
from reporting.statistics import REPS, Interval

PREFIX, SUFFIX = "reward/", "_mean"
PROXY, GOLD, EXPLOIT = "proxy", "gold", "exploit_rate"
AUXILIARIES = "standardised auxiliaries"  # a column that `with_auxiliaries` adds
BLOCK = ["base", "task"]
KEYS = [*RUN, "window", "step"]


def windowed(history: pd.DataFrame, windows: int) -> pd.DataFrame:
    """Mean of every logged reward over windows of the training: a row per run and window that has readings.

    ``history``: run, base, task, method, seed, step (from 1), name, value. ``windows``: number of equal parts
    of the longest training on the same base and task, so that all its runs share their windows. Returns the
    columns ``KEYS`` (``step``: the window's centre) and one per metric, its name without ``reward/`` and
    ``_mean``; NaN where a window has no reading of it. Runs keep their order. Raises ``ValueError`` for fewer
    than one window.
    """
    if windows < 1:
        raise ValueError(f"{COURSE}: windows is {windows}; valid: whole numbers from 1")
    metrics = {
        name: name[len(PREFIX) : -len(SUFFIX)]
        for name in history["name"].unique()
        if name.startswith(PREFIX) and name.endswith(SUFFIX)
    }
    history = history[history["name"].isin(list(metrics))]
    if history.empty:
        return pd.DataFrame(columns=KEYS)
    steps = history["step"].to_numpy(np.int64)
    longest = history.groupby(BLOCK, sort=False)["step"].transform("max").to_numpy(np.int64)
    # Runs as numbers, in the order in which they come: theirs is the grid's, and numbers are grouped faster.
    number, _ = pd.factorize(history["run"])
    rows = pd.DataFrame({"number": number, "window": (steps - 1) * windows // longest})
    rows["metric"], rows["value"] = history["name"].map(metrics).to_numpy(), history["value"].to_numpy(float)
    wide = rows.groupby(["number", "window", "metric"])["value"].mean().unstack("metric").reset_index()
    runs = history[RUN].assign(width=longest / windows)[~pd.Series(number).duplicated().to_numpy()]
    keys = runs.iloc[wide["number"].to_numpy()].reset_index(drop=True)
    keys["step"] = (wide["window"] + 0.5) * keys.pop("width")
    wide.columns.name = None
    return pd.concat([keys, wide.drop(columns="number")], axis=1)[[*KEYS, *sorted(metrics.values())]]


def width(curves: pd.DataFrame) -> float:
    """Steps of one window; ``curves``: of one base and task."""
    first = curves.iloc[0]
    return first["step"] / (first["window"] + 0.5)


def runs_over_steps(curves: pd.DataFrame, metric: str) -> pd.DataFrame:
    """One method's windows (rows, by step) of each seed (columns); windows that a seed lacks are left out."""
    if metric not in curves:
        return pd.DataFrame()
    wide = curves.pivot(index="step", columns="seed", values=metric)
    return wide.dropna(axis=1, how="all").dropna(axis=0, how="any")


def start(curves: pd.DataFrame) -> pd.DataFrame:
    """First window of the runs, by seed (rows) and metric: mean over methods, which all start at the base."""
    metrics = [c for c in curves if c not in KEYS]
    first = curves.sort_values("step").groupby("run")[["seed", *metrics]].first()  # the first that is not NaN
    return first.groupby("seed")[metrics].mean()


def first_reach(steps: np.ndarray, values: np.ndarray, level: float) -> float | None:
    """Step at which a curve first reaches ``level``, linear between its windows; None if it never does."""
    reached = np.flatnonzero(values >= level)
    if not len(reached):
        return None
    i = reached[0]
    if i == 0:
        return float(steps[0])
    share = (level - values[i - 1]) / (values[i] - values[i - 1])
    return float(steps[i - 1] + share * (steps[i] - steps[i - 1]))


def at_step(run: pd.DataFrame, metric: str, step: float) -> float:
    """A run's value between its windows, linear; NaN where it was never measured."""
    if metric not in run:
        return np.nan
    known = run[["step", metric]].dropna().sort_values("step")
    return float(np.interp(step, known["step"], known[metric])) if len(known) else np.nan


def at_level(curves: pd.DataFrame, level: float) -> pd.DataFrame:
    """Where each run first reaches a proxy of ``level``: its step and all metrics, by seed.

    Runs that never do are absent. Metrics are linear between windows, NaN where a run never measured them.
    """
    metrics, found = [c for c in curves if c not in KEYS], {}
    for seed, run in curves.sort_values("step").groupby("seed"):
        steps, values = run["step"].to_numpy(float), run[metrics].to_numpy(float)
        known, proxy = np.isfinite(values), metrics.index(PROXY)
        step = first_reach(steps[known[:, proxy]], values[known[:, proxy], proxy], level)
        if step is not None:
            found[seed] = [step] + [
                np.interp(step, steps[k], v[k]) if k.any() else np.nan
                for k, v in zip(known.T, values.T, strict=True)
            ]
    return pd.DataFrame.from_dict(found, orient="index", columns=["step", *metrics], dtype=float)


def levels(
    curves: pd.DataFrame, origin: float, common: Sequence[float], beyond: Sequence[float], digits: int
) -> list[float]:
    """Proxy levels at which methods are compared, rounded, ascending.

    ``common``: shares of the way from ``origin`` to the level that the median run of every method reaches;
    ``beyond``: shares of the way from there to the highest that a median run of any method reaches.
    """
    best = curves.groupby(["method", "seed"])[PROXY].max().groupby("method").median()
    low = max(best.min(), origin)
    found = [origin + s * (low - origin) for s in common] + [low + s * (best.max() - low) for s in beyond]
    return sorted({v for v in (round(float(v), digits) for v in found) if v > origin})


class Turn(NamedTuple):
    """Where the mean of gold over seeds has its (first) maximum, and what each seed loses after it.

    ``step``: with the interval of the maximum found anew on the mean of resampled seeds. The others by seed:
    ``height`` and ``end``: gold at that step and in the last window; ``held_out``: gold lost after the
    maximum of the *other* seeds' mean, which the seed's own noise has not chosen; empty with one seed.
    """

    step: Interval
    height: pd.Series
    end: pd.Series
    held_out: pd.Series

    @property
    def lost(self) -> pd.Series:
        return self.height - self.end


def turn(gold: pd.DataFrame) -> Turn:
    """``gold``: windows (rows, by step) x seeds, without NaN, at least one of each."""
    steps, values = gold.index.to_numpy(float), gold.to_numpy(float)
    count, chosen = values.shape[1], gold.mean(axis=1).idxmax()
    drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=REPS)
    low, high = np.quantile(steps[np.argmax(values @ drawn.T, axis=0)], [0.025, 0.975])
    end, held_out = gold.iloc[-1], {}
    if count > 1:
        for seed in gold:
            held_out[seed] = gold.loc[gold.drop(columns=seed).mean(axis=1).idxmax(), seed] - end[seed]
    height = gold.loc[chosen]
    step = Interval(float(chosen), float(low), float(high), count)
    return Turn(step, height, end, pd.Series(held_out, dtype=float))


def with_auxiliaries(curves: pd.DataFrame, auxiliaries: Sequence[str]) -> pd.DataFrame:
    """``curves`` of one base and task with the mean of their auxiliary rewards, each in standard deviations.

    Measured from the first window, in its standard deviations over the runs (over all windows where the runs
    start alike), since rewards have different units.
    """
    parts, first = [], curves["window"] == curves["window"].min()
    for metric in (m for m in auxiliaries if m in curves):
        spread = curves.loc[first, metric].std(ddof=0)
        if not spread > 0:
            spread = curves[metric].std(ddof=0)
        parts.append((curves[metric] - curves.loc[first, metric].mean()) / (spread if spread > 0 else 1.0))
    score = pd.concat(parts, axis=1).mean(axis=1, skipna=False) if parts else np.nan
    return curves.assign(**{AUXILIARIES: score})


# What a checkpoint is chosen by, each run for itself: the axis of DomainBed (arXiv 2007.01434).
SELECTIONS: Mapping[str, str] = {"last": "step", "auxiliary": AUXILIARIES, "proxy": PROXY, "oracle": GOLD}


def selected(curves: pd.DataFrame, selection: str) -> pd.DataFrame:
    """The (first) window of each run where the selection is highest, by seed; runs without it are absent."""
    metric = SELECTIONS[selection]
    if metric not in curves:
        return curves.iloc[:0].set_index("seed")
    known = curves.sort_values("step").dropna(subset=[metric])
    return curves.loc[known.groupby("seed")[metric].idxmax()].set_index("seed")
