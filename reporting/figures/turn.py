"""The turn of gold: proxy and gold reward over training, beside a control that learns nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reporting.draw import Drawing, Grid, at
from reporting.figure_style import (
    BASE_MARK,
    STYLE,
    NothingToDraw,
    blocks_of,
    check_labels,
    finish,
    handles,
    method_styles,
    panels,
)
from reporting.statistics import bootstrap_interval
from reporting.trajectories import EXPLOIT, GOLD, PROXY, runs_over_steps, start, turn, width

PANELS = {PROXY: "proxy", GOLD: "gold", EXPLOIT: "exploit rate"}
CONTROL = dict(color="0.45", linestyle=(0, (4, 2)), marker="o", zorder=1.5)
PER_ROW = 3


def _styles(labels: Mapping[str, str], base_method: str, control: str) -> dict[str, dict]:
    return method_styles(list(labels), base_method) | {control: CONTROL}


def _drawn(curves: pd.DataFrame, methods: Sequence[str], control: str) -> pd.DataFrame:
    """Rows of the methods and the control on tasks where a method but the control has proxy and gold."""
    if not {PROXY, GOLD} <= set(curves):
        raise NothingToDraw("no run logged the proxy and gold")
    curves = curves[curves["method"].isin([*methods, control])]
    known = curves.dropna(subset=[PROXY, GOLD])
    tasks = known.loc[known["method"] != control, ["base", "task"]].drop_duplicates()
    curves = curves.merge(tasks)
    if curves.empty:
        raise NothingToDraw(f"none of {', '.join(methods)} logged the proxy and gold")
    return curves


def _curve(ax: Axes, runs: pd.DataFrame, style: dict) -> None:
    """Mean over seeds with its 95 % bootstrap interval; ``runs``: windows x seeds."""
    ax.plot(runs.index, runs.mean(axis=1), **(style | {"marker": "", "linewidth": 1.5}))
    if runs.shape[1] > 1:
        intervals = [bootstrap_interval(values) for values in runs.to_numpy()]
        low, high = np.array([(v.low, v.high) for v in intervals]).T
        ax.fill_between(runs.index.to_numpy(float), low, high, color=style["color"], alpha=0.13, linewidth=0)


def _mark(ax: Axes, x: float, y: float, style: dict) -> None:
    """A method's maximum of gold."""
    look = dict(marker=style["marker"], markersize=6.5, markeredgecolor="white", zorder=4)
    ax.plot([x], [y], color=style["color"], linestyle="none", **look)


def over_steps(
    curves: pd.DataFrame,
    stem: str | Path,
    labels: Mapping[str, str],
    methods: Sequence[str],
    control: str,
    *,
    base_method: str = "base",
) -> Figure:
    """Proxy, gold and, where it was measured, the exploit rate over training, a panel each.

    ``curves``: as made by ``trajectories.windowed``, of one base and task. Means over seeds with 95 %
    bootstrap intervals; a marker where the mean of gold is highest, in all panels; the control is grey.
    """
    check_labels(curves, labels)
    curves = _drawn(curves, methods, control)
    styles, present = _styles(labels, base_method, control), set(curves["method"])
    titles = {m: t for m, t in PANELS.items() if m in curves and curves[m].notna().any()}
    (base, task), _ = blocks_of(curves)[0]
    with rc_context(STYLE):
        figure, axes = panels(1, len(titles), width=3.6, height=2.9)
        for method in (m for m in labels if m in present):
            mine = curves[curves["method"] == method]
            gold = runs_over_steps(mine, GOLD)
            step = turn(gold).step.mean if len(gold) else None
            for ax, metric in zip(axes[0], titles, strict=True):
                runs = runs_over_steps(mine, metric)
                if len(runs):
                    _curve(ax, runs, styles[method])
                    if step in runs.index:
                        _mark(ax, step, runs.loc[step].mean(), styles[method])
        for ax, title in zip(axes[0], titles.values(), strict=True):
            ax.set(title=title, xlabel=f"step (means over {width(curves):g} steps)")
            ax.set_xlim(0, curves["step"].max() + width(curves) / 2)
        figure.suptitle(
            f"{base}, trained on {task}; markers: maximum of gold", fontsize=STYLE["axes.titlesize"]
        )
        return finish(figure, handles(present, labels, styles, True, True), stem)


def gold_over_proxy(
    curves: pd.DataFrame,
    stem: str | Path,
    labels: Mapping[str, str],
    methods: Sequence[str],
    control: str,
    *,
    base_method: str = "base",
) -> Figure:
    """Goodhart's curve: gold over proxy along the training, a panel per (base, task), means over seeds.

    From the start of training (star: the first window of all methods) through a dot per window to the last
    (marker). A curve that turns down while it goes right loses gold that it had at a lower proxy; the control
    shows which way drift alone goes.
    """
    check_labels(curves, labels)
    curves = _drawn(curves, methods, control)
    styles, blocks = _styles(labels, base_method, control), blocks_of(curves)
    columns = min(PER_ROW, len(blocks))
    with rc_context(STYLE):
        figure, axes = panels(-(-len(blocks) // columns), columns)
        for ax, ((base, task), of_task) in zip(axes.flat, blocks, strict=False):
            for method in (m for m in labels if m in set(of_task["method"])):
                mine, style = of_task[of_task["method"] == method], styles[method]
                path = pd.concat([runs_over_steps(mine, m).mean(axis=1) for m in (PROXY, GOLD)], axis=1)
                path, last = path.dropna().to_numpy(), style | {"linestyle": "none", "markersize": 6}
                if not len(path):
                    continue
                ax.plot(*path.T, **(style | {"marker": ".", "markersize": 4, "linewidth": 1.3, "alpha": 0.9}))
                ax.plot(*path[-1:].T, **(last | {"markeredgecolor": "white", "zorder": 4}))
            first = start(of_task)[[PROXY, GOLD]].mean()
            ax.plot(first[PROXY], first[GOLD], **BASE_MARK)
            ax.set(title=f"{base}, {task}", xlabel="proxy", ylabel="gold" if ax in axes[:, 0] else "")
        for ax in axes.flat[len(blocks) :]:
            ax.set_axis_off()
        shown = labels | {base_method: "start of training"}
        return finish(figure, handles({*curves["method"], base_method}, shown, styles, True, True), stem)


def drawings(grid: Grid) -> Iterator[Drawing]:
    common = (grid.labels, grid.sections.turn.methods, grid.course.control)
    yield "proxy_versus_gold", lambda stem: gold_over_proxy(grid.windows, stem, *common)
    for base, task in grid.results.places():
        curves = at(grid.windows, base, task)
        yield f"turn_{base}_{task}", lambda stem, curves=curves: over_steps(curves, stem, *common)
