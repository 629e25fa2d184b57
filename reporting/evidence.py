"""What a claim's test looks at: numbers by seed, from scores, training histories, votes or the mixture.

Every ``Evidence`` method returns seed -> value, or seed -> values by prompt (P,), and an empty mapping where
the runs or the metric are absent.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from core.settings import ConfigError
from evaluation.scores import IMAGE_KEY, MODEL, ByImage, BySeed, Scores, by_seed, last_step
from reporting.results import Results

PEOPLE = "people"  # stands for a metric that votes
NOTHING = pd.DataFrame(columns=["method", "seed", "step", "name", "value"])


class Windows(NamedTuple):
    """A training history in windows: first and last step of each, and seed -> means (W,)."""

    spans: list[tuple[int, int]]
    by_seed: dict[int, np.ndarray]


@dataclass(frozen=True)
class Evidence:
    """One base and task.

    ``rows``: last-step scores; ``images``: by ``IMAGE_KEY``; ``history`` has the columns
    method, seed, step, name, value; ``mixture`` has method, seed, step, measure, value, and where there are
    several, setting; ``people``: rows of ``results/votes.parquet``;
    ``every``: scores at every evaluated step, without which the last ones are all there is.
    """

    rows: pd.DataFrame
    proxy: str = ""
    images: ByImage = field(default_factory=dict)
    history: pd.DataFrame = field(default_factory=lambda: NOTHING)
    mixture: pd.DataFrame | None = None
    people: pd.DataFrame | None = None
    every: pd.DataFrame | None = None

    def until(self, step: int) -> Evidence:
        """As if every run had ended there: scores and histories of no later step."""
        every = self.rows if self.every is None else self.every
        seen = every[every["step"] <= step]
        history = self.history[self.history["step"] <= step]
        return replace(self, rows=last_step(seen), history=history, every=seen)

    def methods(self, pattern: str, without: Collection[str] = ()) -> list[str]:
        """Names of the methods that ran and match; ``without`` those that no wildcard means."""
        known = set(self.rows["method"]) if self.mixture is None else set(self.mixture["method"])
        return sorted(m for m in known if m == pattern or (fnmatch.fnmatch(m, pattern) and m not in without))

    def metrics(self, role: str) -> list[str]:
        """Metrics that have a role in this task."""
        return sorted(set(self.rows.loc[self.rows["role"] == role, "metric"]))

    def _rows(self, metric: str, method: str, at: Mapping[int, int] | None = None) -> pd.DataFrame:
        source = self.rows if at is None or self.every is None else self.every
        rows = source[(source["method"] == method) & (source["metric"] == metric)]
        if at is not None:
            rows = rows[rows["step"] == rows["seed"].map(at)]
        own = rows[rows["own"] | (rows["suite"] == MODEL)]
        if own.empty and rows["suite"].nunique() == 1:
            own = rows  # the papers measure unseen metrics on DrawBench, whatever was trained
        return own.sort_values("seed")

    def _named(self, metric: str) -> str:
        return self.proxy if metric == "proxy" else metric

    def score(self, metric: str, method: str, at: Mapping[int, int] | None = None) -> BySeed:
        """``proxy`` stands for the task's proxy metric. In the task's own suite, of the model, or else in the
        one suite that has the metric. ``at``: seed -> step; without: the last step."""
        return by_seed(self._rows(self._named(metric), method, at), self.images)

    def steps(self, metric: str, method: str) -> dict[int, int]:
        """Seed -> the step at which ``score`` is taken."""
        rows = self._rows(self._named(metric), method)
        return dict(zip(rows["seed"], rows["step"], strict=True))

    def evaluated(self, metric: str, method: str) -> list[int]:
        """Every step at which a method has the metric."""
        source = self.rows if self.every is None else self.every
        mine = (source["method"] == method) & (source["metric"] == self._named(metric))
        return sorted(set(source.loc[mine, "step"]))

    def windows(self, name: str, method: str, count: int) -> Windows:
        """A logged number in ``count`` windows of as many steps, in fewer where it was logged less often."""
        rows = self.history[(self.history["method"] == method) & (self.history["name"] == name)]
        series = {seed: mine.sort_values("step") for seed, mine in rows.groupby("seed")}
        if not series:
            return Windows([], {})
        count = min(count, *map(len, series.values()))
        longest = max(series.values(), key=len)["step"].to_numpy()
        spans = [(int(part[0]), int(part[-1])) for part in np.array_split(longest, count)]
        means = {
            seed: np.array([part.mean() for part in np.array_split(mine["value"].to_numpy(float), count)])
            for seed, mine in series.items()
        }
        return Windows(spans, means)

    def trained(self, name: str, method: str, over: str) -> BySeed:
        """Mean of a logged number over the training or over one of its halves, or its late growth: its
        last third over its second, in the mean."""
        rows = self.history[(self.history["method"] == method) & (self.history["name"] == name)]
        values = {}
        for seed, mine in rows.groupby("seed"):
            series = mine.sort_values("step")["value"].to_numpy()
            n = len(series)
            halves = {"whole": series, "first half": series[: n // 2], "second half": series[n // 2 :]}
            if over == "late growth":
                second, last = series[n // 3 : 2 * n // 3].mean(), series[2 * n // 3 :].mean()
                value = last / second if n >= 3 and second > 0 else None
            else:
                value = halves[over].mean() if len(halves[over]) else None
            if value is not None:
                values[seed] = np.asarray(value)
        return values

    def votes(self, metric: str, method: str, against: str, at: Mapping[int, int] | None = None) -> BySeed:
        """Delta-Vote in per cent by seed and prompt: images of ``against`` that ``metric`` prefers, minus
        those of ``method``. The pair of a vote shares prompt, seed and initial noise. ``at``: steps of
        ``against``; without: its last. ``people`` stands for votes of people, in the mean of a seed.
        """
        if metric == PEOPLE:
            return self._peoples(method, against)
        theirs = self._rows(metric, against, at)
        pairs = self._rows(metric, method).merge(theirs, on="seed", suffixes=("", "_2"))
        values = {}
        for pair in pairs.to_dict("records"):
            ours, theirs = (self.images.get(tuple(pair[k + s] for k in IMAGE_KEY)) for s in ("", "_2"))
            if ours and theirs and ours.values.shape == theirs.values.shape:
                values[pair["seed"]] = 100 * np.sign(theirs.values - ours.values).mean(axis=1)
        return values

    def _peoples(self, method: str, against: str) -> BySeed:
        if self.people is None:
            return {}
        found = self.people
        as_a = (found["method_a"] == method) & (found["method_b"] == against)
        as_b = (found["method_b"] == method) & (found["method_a"] == against)
        for_first = found["chosen"].map({"a": 1.0, "b": -1.0}).astype(float).fillna(0.0)
        points = 100 * pd.concat([-for_first[as_a], for_first[as_b]])
        means = points.groupby(found["seed"].reindex(points.index)).mean()
        return {int(seed): np.asarray(value) for seed, value in means.items()}

    def mixed(self, measure: str, method: str) -> BySeed:
        """Last step of the Gaussian mixture's runs; of several settings a value each, in one order."""
        mine = self.mixture[(self.mixture["method"] == method) & (self.mixture["measure"] == measure)]
        keys = ["seed", *(["setting"] if "setting" in mine else [])]
        last = mine.sort_values("step").groupby(keys)["value"].last()
        return {seed: values.to_numpy().squeeze() for seed, values in last.groupby("seed")}


def evidence_of(
    scores: Scores,
    history: pd.DataFrame,
    proxies: Mapping[str, str],
    bases: list[str],
) -> list[tuple[tuple[str, str], Evidence]]:
    """Evidence of every base and task, in the grid's order of bases."""
    last, table, blocks = last_step(scores.table), scores.table, []
    unknown = sorted(set(last["task"]) - set(proxies))
    if unknown:
        raise ConfigError(f"the scores hold the tasks {unknown}; the settings know {sorted(proxies)}")
    for (base, task), rows in sorted(last.groupby(["base", "task"]), key=lambda b: bases.index(b[0][0])):
        mine = history[(history["base"] == base) & (history["task"] == task)]
        every = table[(table["base"] == base) & (table["task"] == task)]
        evidence = Evidence(rows, proxies[task], scores.images, mine, every=every)
        blocks.append(((base, task), evidence))
    return blocks


def evidence_in(results: Results) -> list[tuple[tuple[str, str], Evidence]]:
    """Evidence of every base and task of a stored grid."""
    settings = results.settings
    return evidence_of(results.scores, results.histories, settings.proxies, settings.bases)
