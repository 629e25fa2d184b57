"""Statistics over seeds: intervals, pooled means and comparisons. Deterministic: no global random state.

The estimators follow rliable (Agarwal et al., arXiv 2108.13264): the unit that is resampled is the
run (one seed), because images of one run share everything that training did. Where the scores of single
prompts are known, prompts are resampled within each drawn seed as well.
With few seeds the percentile interval is narrow (over seeds alone it cannot leave the observed range), so
tables and figures always say how many seeds stand behind it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

REPS = 10_000


class Interval(NamedTuple):
    """A mean, its interval and the number of seeds; ``seeds=1`` means the interval is the value itself."""

    mean: float
    low: float
    high: float
    seeds: int


@functools.lru_cache(maxsize=64)
def _draws(count: int, reps: int, seed: int) -> np.ndarray:
    """Indices of ``reps`` resamples with replacement of ``count`` seeds, (reps, count)."""
    return np.random.default_rng(seed).integers(0, count, size=(reps, count))


@functools.lru_cache(maxsize=16)
def _prompt_weights(seeds: int, prompts: int, reps: int, seed: int) -> np.ndarray:
    """Share of each prompt in a resample, drawn anew for every drawn seed: (seeds, reps, P)."""
    rng = np.random.default_rng([seed, 1])
    counts = rng.multinomial(prompts, np.full(prompts, 1 / prompts), size=(seeds, reps))
    return (counts / prompts).astype(np.float32)


def _finite(values, dimensions: tuple[int, ...]) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim not in dimensions or values.size == 0:
        raise ValueError(f"expected one value (or one row) per seed, at least one; got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"values over seeds must be finite, got {values.tolist()}")
    return values


def _percentiles(samples: np.ndarray, level: float) -> tuple[float, float]:
    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1), got {level}")
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap_interval(
    values_by_seed: Sequence[float] | np.ndarray, level: float = 0.95, reps: int = REPS, seed: int = 0
) -> Interval:
    """Mean and percentile bootstrap interval over seeds, and over prompts within a seed where they are given.

    ``values_by_seed``: (S,) floats, one per seed, or (S, P), one per seed and prompt; seeds in any order. One
    seed without prompts, or values that all agree, give an interval of width zero; only ``Interval.seeds``
    tells the two apart. Prompts are drawn for each seed apart, although all seeds share one test set: what
    the choice of its prompts would change in all seeds alike is not in the interval.
    """
    values = _finite(values_by_seed, (1, 2))
    # Sorted, so that the order in which runs were collected cannot change a digit.
    values = np.sort(values) if values.ndim == 1 else values[np.lexsort(values.T[::-1])]
    count = len(values)
    if values.min() == values.max():
        return Interval(float(values.min()), float(values.min()), float(values.min()), count)
    drawn = _draws(count, reps, seed)
    if values.ndim == 1:
        means = values[drawn].mean(axis=1)
    else:
        weights = _prompt_weights(count, values.shape[1], reps, seed).reshape(count * reps, -1)
        centre = values.mean()  # taken out, so that single precision loses nothing
        by_slot = (weights @ (values - centre).T.astype(np.float32)).reshape(count, reps, count)
        means = centre + by_slot[np.arange(count), np.arange(reps)[:, None], drawn].mean(axis=1)
    return Interval(float(values.mean()), *_percentiles(means, level), count)


def paired_differences(ours: Mapping[int, np.ndarray], theirs: Mapping[int, np.ndarray]) -> np.ndarray:
    """Differences on the seeds that both have, (S,) or (S, P): runs of one seed share prompts and noise.

    Both map a seed to its value, or to its values by prompt. An empty array where no seed is common.
    """
    return np.array([np.asarray(ours[s], float) - np.asarray(theirs[s], float) for s in ours if s in theirs])


def smallest_effect(differences: np.ndarray, level: float = 0.95) -> float | None:
    """Least mean difference that seeds with this spread can tell from zero, in the metric's units; >= 0.

    Half the width of Student's interval, t * sd / sqrt(S), from paired differences (S,) or (S, P), the latter
    averaged over prompts. None for fewer than two seeds, which have no spread.
    """
    values = _finite(differences, (1, 2))
    values = values if values.ndim == 1 else values.mean(axis=1)
    if len(values) < 2:
        return None
    quantile = stats.t.ppf((1 + level) / 2, len(values) - 1)
    return float(quantile * values.std(ddof=1) / np.sqrt(len(values)))


def interquartile_mean(values: Sequence[float] | np.ndarray, axis: int | None = None):
    """Mean of the middle half: 25 % trimmed on each side (rliable's ``aggregate_iqm``)."""
    return stats.trim_mean(values, 0.25, axis=axis)


def stratified_bootstrap(
    values_by_stratum: Mapping[str, Sequence[float]],
    statistic: Callable = interquartile_mean,
    level: float = 0.95,
    reps: int = REPS,
    seed: int = 0,
) -> Interval:
    """Interval of ``statistic`` over the pooled values of several tasks, as in rliable.

    ``values_by_stratum``: task -> (S_task,) values, on one common scale. Seeds are resampled inside
    each task, independently of the other tasks, so every resample keeps each task's weight.
    ``statistic(array, axis)`` reduces one axis. ``Interval.mean`` holds the statistic itself and
    ``Interval.seeds`` the smallest number of seeds in any task.
    """
    if not values_by_stratum:
        raise ValueError("stratified_bootstrap needs at least one stratum")
    strata = [np.sort(_finite(values_by_stratum[name], (1,))) for name in sorted(values_by_stratum)]
    rng = np.random.default_rng(seed)
    resampled = [s[rng.integers(0, s.size, size=(reps, s.size))] for s in strata]
    low, high = _percentiles(statistic(np.concatenate(resampled, axis=1), axis=1), level)
    centre = float(statistic(np.concatenate(strata)[None], axis=1)[0])
    return Interval(centre, low, high, min(s.size for s in strata))


def improvement_interval(
    ours: Mapping[str, Sequence[float]],
    theirs: Mapping[str, Sequence[float]],
    level: float = 0.95,
    reps: int = REPS,
    seed: int = 0,
) -> Interval:
    """Probability that a random run of ``ours`` beats one of ``theirs``, averaged over tasks, in [0, 1].

    Mann-Whitney's U divided by the number of pairs; a tie counts one half (rliable's definition).
    Both mappings are task -> (S,) values, with the same tasks and higher values better; in the interval both
    sides are resampled inside each task.
    """
    if not ours or set(ours) != set(theirs):
        raise ValueError(f"tasks differ or are missing: {sorted(ours)} and {sorted(theirs)}")
    rng, centre, samples, seeds = np.random.default_rng(seed), [], [], []

    def wins(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        x, y = x[..., :, None], y[..., None, :]
        return ((x > y) + 0.5 * (x == y)).mean(axis=(-1, -2))

    for task in sorted(ours):
        x, y = np.sort(_finite(ours[task], (1,))), np.sort(_finite(theirs[task], (1,)))
        seeds += [x.size, y.size]
        centre.append(wins(x, y))
        samples.append(wins(*(v[rng.integers(0, v.size, size=(reps, v.size))] for v in (x, y))))
    return Interval(float(np.mean(centre)), *_percentiles(np.mean(samples, axis=0), level), min(seeds))
