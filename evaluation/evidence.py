"""What a claim's test looks at: numbers by seed, from scores, training histories, votes or the mixture.

Every ``Evidence`` method returns seed -> value, or seed -> values by prompt (P,), and an empty mapping where
the runs or the metric are absent.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from evaluation.image_scores import KEY, ByImage, by_seed

BySeed = Mapping[int, np.ndarray]
MODEL = "model"  # the suite of what is measured on the model instead of on images
NOTHING = pd.DataFrame(columns=["method", "seed", "step", "name", "value"])


@dataclass(frozen=True)
class Evidence:
    """One base and task.

    ``rows``: last-step scores; ``images``: as made by ``image_scores.by_image``; ``history`` has the columns
    method, seed, step, name, value; ``mixture`` has method, seed, step, measure, value, and where
    there are several, setting.
    """

    rows: pd.DataFrame
    suite: str = ""
    proxy: str = ""
    images: ByImage = field(default_factory=dict)
    history: pd.DataFrame = field(default_factory=lambda: NOTHING)
    mixture: pd.DataFrame | None = None

    def methods(self, pattern: str) -> list[str]:
        """Names of the methods that ran and match."""
        known = set(self.rows["method"]) if self.mixture is None else set(self.mixture["method"])
        return sorted(m for m in known if fnmatch.fnmatch(m, pattern))

    def _rows(self, metric: str, method: str) -> pd.DataFrame:
        rows = self.rows[(self.rows["method"] == method) & (self.rows["metric"] == metric)]
        own = rows[rows["suite"].isin([self.suite, MODEL])]
        if own.empty and rows["suite"].nunique() == 1:
            own = rows  # the papers measure unseen metrics on DrawBench, whatever was trained
        return own.sort_values("seed")

    def score(self, metric: str, method: str) -> BySeed:
        """Last step, ``proxy`` stands for the task's proxy metric. In the task's own suite, of the model, or
        else in the one suite that has the metric."""
        return by_seed(self._rows(self.proxy if metric == "proxy" else metric, method), self.images)

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

    def votes(self, metric: str, method: str, against: str) -> BySeed:
        """Delta-Vote in per cent by seed and prompt: images of ``against`` that ``metric`` prefers, minus
        those of ``method``. The pair of a vote shares prompt, seed and initial noise."""
        pairs = self._rows(metric, method).merge(self._rows(metric, against), on="seed", suffixes=("", "_2"))
        values = {}
        for pair in pairs.to_dict("records"):
            ours, theirs = (self.images.get(tuple(pair[k + s] for k in KEY)) for s in ("", "_2"))
            if ours and theirs and ours.values.shape == theirs.values.shape:
                values[pair["seed"]] = 100 * np.sign(theirs.values - ours.values).mean(axis=1)
        return values

    def mixed(self, measure: str, method: str) -> BySeed:
        """Last step of the Gaussian mixture's runs; of several settings a value each, in one order."""
        mine = self.mixture[(self.mixture["method"] == method) & (self.mixture["measure"] == measure)]
        keys = ["seed", *(["setting"] if "setting" in mine else [])]
        last = mine.sort_values("step").groupby(keys)["value"].last()
        return {seed: values.to_numpy().squeeze() for seed, values in last.groupby("seed")}
