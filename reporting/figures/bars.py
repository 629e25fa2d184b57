"""Numbers side by side at the last step: accuracy by number of objects, diversity."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from core.prompts import count_objects
from core.prompts import read as read_prompts
from evaluation.scores import IMAGE_KEY, ByImage, Scores
from methods.maths.diversity import DIVERSITY
from reporting.draw import Drawing, Grid
from reporting.figure_style import (
    STYLE,
    NothingToDraw,
    blocks_of,
    finish,
    handles,
    method_styles,
    panels,
)
from reporting.statistics import bootstrap_interval


def _by_count(rows: pd.DataFrame, images: ByImage, counts: Sequence[int]) -> dict[int, list[float]]:
    """Number of objects -> accuracy of each run; ``rows``: one method's accuracy scores."""
    values: dict[int, list[float]] = {}
    for _, of_run in rows.groupby("run"):
        cells = [images[key] for key in of_run[IMAGE_KEY].itertuples(index=False, name=None) if key in images]
        for count in sorted({counts[p] for cell in cells for p in cell.prompts}):
            found = [
                v
                for cell in cells
                for p, v in zip(cell.prompts, cell.values, strict=True)
                if counts[p] == count
            ]
            values.setdefault(count, []).append(float(np.mean(found)))
    return values


def accuracy_by_count(
    scores: Scores,
    counts: Sequence[int],
    stem: str | Path,
    labels: Mapping[str, str],
    *,
    task: str = "counting",
    base_method: str = "base",
) -> Figure:
    """Strict accuracy by number of objects, one panel per base: mean over seeds with 95 % intervals.

    ``counts``: number of objects of each test prompt. Numbers to the right of the line were never trained on.
    """
    rows, images = scores.last().table, scores.images
    rows = rows[(rows["task"] == task) & rows["metric"].str.startswith("accuracy_")]
    if rows.empty or not images:
        raise NothingToDraw(f"no single-image scores of the task {task}")
    styles, blocks = method_styles(list(labels), base_method), blocks_of(rows)
    trained = max(counts[p] for key, cell in images.items() if key[3] == "accuracy_1_9" for p in cell.prompts)
    with rc_context(STYLE):
        figure, axes = panels(1, len(blocks), width=5.6, height=2.8)
        drawn = [m for m in labels if m in set(rows["method"])]
        for ax, ((base, _), of_base) in zip(axes[0], blocks, strict=True):
            for i, method in enumerate(drawn):
                accuracy = _by_count(of_base[of_base["method"] == method], images, counts)
                intervals = {n: bootstrap_interval(v) for n, v in sorted(accuracy.items())}
                x = np.array(list(intervals)) + (i - (len(drawn) - 1) / 2) * 0.6 / len(drawn)
                mean, low, high = (
                    np.array([getattr(v, k) for v in intervals.values()]) for k in ("mean", "low", "high")
                )
                style = styles[method] | {"markersize": 9 if method == base_method else 5, "linewidth": 0.8}
                ax.errorbar(x, mean, yerr=[mean - low, high - mean], elinewidth=1, **style)
            ax.axvline(trained + 0.5, color="0.5", linewidth=0.8, linestyle=":")
            ax.set(title=f"{base}, {task}", xlabel="number of objects", ylabel="strict accuracy")
            ax.set_xticks(sorted(set(counts)))
            ax.set_ylim(bottom=0)
        return finish(figure, handles(drawn, labels, styles, True, True), stem)


def diversity(
    scores: Scores,
    stem: str | Path,
    labels: Mapping[str, str],
    *,
    base_method: str = "base",
) -> Figure:
    """Diversity x 100 per method, one panel per (base, task), own suite: mean with 95 % intervals over seeds
    and prompts."""
    last = scores.last().in_suite("own").of(metric=DIVERSITY)
    rows = last.table
    if rows.empty:
        raise NothingToDraw("no run has a diversity")
    styles, blocks = method_styles(list(labels), base_method), blocks_of(rows)
    most = max(block["method"].nunique() for _, block in blocks)
    with rc_context(STYLE):
        figure, axes = panels(1, len(blocks), width=3.4, height=0.4 + 0.24 * most)
        for ax, ((base, task), of_task) in zip(axes[0], blocks, strict=True):
            drawn = [m for m in labels if m in set(of_task["method"])]
            for place, method in enumerate(drawn):
                values = last.of(base=base, task=task, method=method).values(DIVERSITY, scale=100)
                v = bootstrap_interval(np.array(list(values.values())))
                look = styles[method] | {"linestyle": "none", "elinewidth": 1.2}
                ax.errorbar(v.mean, place, xerr=[[v.mean - v.low], [v.high - v.mean]], **look)
                if method == base_method:
                    ax.axvline(v.mean, color="0.6", linewidth=0.8, linestyle=":", zorder=1)
            ax.set_yticks(range(len(drawn)), [labels[m] for m in drawn])
            ax.set_ylim(len(drawn) - 0.5, -0.5)
            ax.set(title=f"{base}, {task}", xlabel="diversity × 100")
        return finish(figure, [], stem)


def drawings(grid: Grid) -> Iterator[Drawing]:
    scores, suites = grid.results.scores, grid.results.settings.suites
    yield "diversity", lambda stem: diversity(scores, stem, grid.labels)

    def counting(stem: Path):
        if "counting" not in suites:
            raise NothingToDraw("the grid has no task counting")
        counts = [count_objects(p) for p in read_prompts(Path(suites["counting"].prompts))]
        shown = Scores(grid.shown(scores.table), scores.images)
        return accuracy_by_count(shown, counts, stem, grid.labels)

    yield "counting", counting
