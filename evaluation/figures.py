"""Figures from stored histories and scores; nothing here trains, samples or scores.

Every function takes a DataFrame and an output stem, writes ``<stem>.png`` (150 dpi) and ``<stem>.pdf`` and
returns the Figure. ``method_rows`` maps method -> label in the grid's order, as in ``tables.render``: a
method keeps its colour, line and marker in every figure, whichever methods are drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from evaluation.statistics import bootstrap_interval, check_scores, last_step

SIZE = 8.5  # points, of all text
STYLE = {"axes.grid": True, "grid.color": "0.92", "axes.edgecolor": "0.4", "axes.linewidth": 0.8}
STYLE |= {"font.size": SIZE, "axes.titlesize": SIZE + 1, "axes.labelsize": SIZE, "legend.frameon": False}
STYLE |= {"legend.fontsize": SIZE, "xtick.labelsize": SIZE, "ytick.labelsize": SIZE, "pdf.fonttype": 42}
# Okabe and Ito's colour-blind-safe colours without yellow, which vanishes on paper, and with a grey.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#666666")
MARKERS = "osD^vP<X>p"
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (6, 1.5, 1.5, 1.5)))
BASE_MARK = dict(
    color="black", marker="*", markersize=11, linestyle="none", markeredgecolor="white", zorder=5
)
HISTORY_NAMES = {"reward/proxy_mean": "proxy (training reward)", "reward/gold_mean": "gold reward"}


def method_styles(methods: Sequence[str], base_method: str) -> dict[str, dict]:
    """Line style per method. Dashes and markers change with the colours, by counts that share no divisor
    with theirs, so that a colour that returns looks different and grey print stays readable."""
    styles = {base_method: BASE_MARK}
    for i, method in enumerate(m for m in methods if m != base_method):
        looks = zip(("color", "linestyle", "marker"), (COLOURS, DASHES, MARKERS), strict=True)
        styles[method] = {key: choices[i % len(choices)] for key, choices in looks}
    return styles


def _labels(data: pd.DataFrame, method_rows) -> dict[str, str]:
    labels = dict(method_rows) if method_rows else {m: m for m in sorted(set(data["method"]))}
    missing = sorted(set(data["method"]) - set(labels))
    if missing:
        raise ValueError(f"methods without a label: {missing}")
    return labels


def _blocks(data: pd.DataFrame) -> list[tuple[tuple[str, str], pd.DataFrame]]:
    """((base, task), rows) in the order in which the data has them."""
    return list(data.groupby(["base", "task"], sort=False))


def _panels(rows: int, columns: int) -> tuple[Figure, np.ndarray]:
    if not columns:
        raise ValueError("nothing to draw: no (base, task) has the rows that the figure needs")
    figure = Figure(figsize=(1.0 + 3.1 * columns, 0.9 + 2.6 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.06)
    for ax in axes.flat:
        sns.despine(ax=ax)
        ax.set_axisbelow(True)
        ax.locator_params(nbins=6)
    return figure, axes


def _finish(figure: Figure, handles: Sequence[Line2D], stem: str | Path) -> Figure:
    """Legend below the panels, where no data can be under it; files without dates, so they compare."""
    entry = (7 + 0.55 * max(len(h.get_label()) for h in handles)) * SIZE / 72  # inches, estimated
    columns = max(1, min(len(handles), int(figure.get_figwidth() / entry)))
    figure.set_figheight(figure.get_figheight() + 0.18 * -(-len(handles) // columns))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, handlelength=3.2)
    Path(stem).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(f"{stem}.png", dpi=150, metadata={"Software": None})
    figure.savefig(f"{stem}.pdf", metadata={"CreationDate": None})
    return figure


def _handles(present, labels, styles, lines: bool, marks: bool) -> list[Line2D]:
    hide = ({} if lines else {"linestyle": "none"}) | ({} if marks else {"marker": ""})
    keep = [m for m in labels if m in present]
    return [
        Line2D([], [], label=labels[m], **(styles[m] | (hide if styles[m] is not BASE_MARK else {})))
        for m in keep
    ]


def learning_curves(
    history: pd.DataFrame,
    stem: str | Path,
    method_rows: Mapping[str, str] | None = None,
    *,
    names: Mapping[str, str] = HISTORY_NAMES,
    base_method: str = "base",
    smooth: int | None = None,
) -> Figure:
    """Training rewards over steps: one column per (base, task), one row per name; mean over seeds.

    ``history``: run, base, task, method, seed, step, name, value. The band is the range over seeds, which
    for few seeds says more than an interval. ``smooth``: steps of a centred running mean per run (default
    a thirtieth of the longest run), because a batch mean is noisy.
    """
    history = history[history["name"].isin(list(names)) & (history["method"] != base_method)]
    labels, blocks = _labels(history, method_rows), _blocks(history)
    styles = method_styles(list(labels), base_method)
    smooth = smooth or max(1, int(history["step"].max()) // 30)
    with rc_context(STYLE):
        figure, axes = _panels(len(names), len(blocks))
        for column, ((base, task), rows) in enumerate(blocks):
            for ax, (name, title) in zip(axes[:, column], names.items(), strict=True):
                for method in labels:
                    mine = rows[(rows["name"] == name) & (rows["method"] == method)]
                    if mine.empty:
                        continue
                    runs = mine.pivot_table(index="step", columns="run", values="value")
                    runs = runs.rolling(smooth, center=True, min_periods=1).mean()
                    style = styles[method] | {"marker": "", "linewidth": 1.4}
                    ax.plot(runs.index, runs.mean(axis=1), **style)
                    if runs.shape[1] > 1:
                        low, high = runs.min(axis=1), runs.max(axis=1)
                        ax.fill_between(runs.index, low, high, color=style["color"], alpha=0.12, linewidth=0)
                ax.set_title(f"{base}, {task}" if ax is axes[0, column] else "")
                ax.set_ylabel(title if column == 0 else "")
                ax.set_xlabel("step" if ax is axes[-1, column] else "")
        return _finish(figure, _handles(set(history["method"]), labels, styles, True, False), stem)


def _proxy_metric(
    rows: pd.DataFrame, base: str, task: str, proxies: Mapping[str, str] | None
) -> pd.DataFrame:
    """The block's proxy rows; more than one proxy metric needs ``proxies`` to choose."""
    rows = rows[rows["role"] == "proxy"]
    if proxies and task in proxies:
        rows = rows[rows["metric"] == proxies[task]]
    found = sorted(set(zip(rows["suite"], rows["metric"], strict=True)))
    if len(found) != 1:
        raise ValueError(
            f"{base}, {task}: expected one proxy, found {found}; name it in proxies={{task: metric}}"
        )
    return rows


def proxy_versus_gold(
    scores: pd.DataFrame,
    stem: str | Path,
    method_rows: Mapping[str, str] | None = None,
    *,
    base_method: str = "base",
    proxies: Mapping[str, str] | None = None,
) -> Figure:
    """Goodhart's curve: gold over proxy along the evaluated steps, from the base (star) to the last (marker).

    One panel per (base, task) with both roles; means over seeds; gold in the task's own suite. A curve
    that turns down while it goes right is reward hacking in the sense of GARDO's Definition 1.
    """
    check_scores(scores)
    labels = _labels(scores, method_rows)
    styles = method_styles(list(labels), base_method)
    scores = scores[
        (scores["role"] == "proxy") | ((scores["role"] == "gold") & (scores["suite"] == scores["task"]))
    ]
    blocks = [(key, rows) for key, rows in _blocks(scores) if {"proxy", "gold"} <= set(rows["role"])]
    drawn = set()
    with rc_context(STYLE):
        figure, axes = _panels(1, len(blocks))
        for ax, ((base, task), rows) in zip(axes[0], blocks, strict=True):
            by = ["method", "step"]
            proxy = _proxy_metric(rows, base, task, proxies).groupby(by)["value"].mean()
            gold = rows[rows["role"] == "gold"].groupby(by)["value"].mean()
            points = pd.DataFrame({"proxy": proxy, "gold": gold}).dropna().reset_index()
            start = points[points["method"] == base_method].tail(1)
            for method in (m for m in labels if m != base_method):
                path = points[points["method"] == method]
                if len(path):
                    path = pd.concat([start, path])
                    ax.plot(
                        path["proxy"],
                        path["gold"],
                        **styles[method],
                        markevery=[-1],
                        linewidth=1.3,
                        alpha=0.9,
                    )
                    ax.plot(path["proxy"], path["gold"], ".", color=styles[method]["color"], markersize=3)
            ax.plot(start["proxy"], start["gold"], **BASE_MARK)
            ax.set(title=f"{base}, {task}", xlabel="proxy", ylabel="gold" if ax is axes[0, 0] else "")
            drawn |= set(points["method"])
        return _finish(figure, _handles(drawn, labels, styles, True, True), stem)


def mean_unseen(rows: pd.DataFrame, base_method: str = "base") -> pd.Series:
    """One number per run from all unseen metrics of a block: (method, seed) -> change from the base.

    Metrics have different scales, so each is measured in standard deviations over the block's runs, from
    the base's mean (without a base: from the mean of the runs). Only metrics that every run has count.
    """
    unseen = rows[rows["role"] == "unseen"]
    wide = unseen.pivot(index=["method", "seed"], columns=["suite", "metric"], values="value").dropna(axis=1)
    if wide.empty:
        raise ValueError("no unseen metric that every run of the block has")
    is_base = wide.index.get_level_values("method") == base_method
    centre = (wide[is_base] if is_base.any() else wide).mean()
    spread = wide.std(ddof=0)
    return ((wide - centre) / spread.where(spread > 0, 1.0)).mean(axis=1)


def pareto(
    scores: pd.DataFrame,
    stem: str | Path,
    method_rows: Mapping[str, str] | None = None,
    *,
    base_method: str = "base",
    proxies: Mapping[str, str] | None = None,
) -> Figure:
    """Last step: proxy against the mean of the unseen metrics, with 95 % bootstrap whiskers over seeds.

    One panel per (base, task). The grey steps bound what the methods
    reached: no method lies above and to the right of them.
    """
    check_scores(scores)
    labels = _labels(scores, method_rows)
    styles = method_styles(list(labels), base_method)
    blocks = [(k, r) for k, r in _blocks(last_step(scores)) if {"proxy", "unseen"} <= set(r["role"])]
    drawn = set()
    with rc_context(STYLE):
        figure, axes = _panels(1, len(blocks))
        for ax, ((base, task), rows) in zip(axes[0], blocks, strict=True):
            proxy = _proxy_metric(rows, base, task, proxies).set_index(["method", "seed"])["value"]
            unseen, points = mean_unseen(rows, base_method), {}
            for method in labels:
                if method in proxy.index and method in unseen.index:
                    x, y = bootstrap_interval(proxy[method]), bootstrap_interval(unseen[method])
                    points[method] = (x.mean, y.mean)
                    whiskers = [[[v.mean - v.low], [v.high - v.mean]] for v in (x, y)]
                    style = styles[method] | {"linestyle": "none"}
                    ax.errorbar(x.mean, y.mean, yerr=whiskers[1], xerr=whiskers[0], elinewidth=1, **style)
            best = [
                p
                for p in points.values()
                if not any(q[0] >= p[0] and q[1] >= p[1] and q != p for q in points.values())
            ]
            ax.plot(
                *zip(*sorted(best), strict=True), color="0.6", linewidth=1, zorder=1, drawstyle="steps-pre"
            )
            ax.axhline(0, color="0.6", linewidth=0.8, linestyle=":", zorder=1)
            y_label = "unseen metrics, change from base\n(mean, in s.d. over runs)"
            ax.set(title=f"{base}, {task}", xlabel="proxy", ylabel=y_label if ax is axes[0, 0] else "")
            drawn |= set(points)
        return _finish(figure, _handles(drawn, labels, styles, False, True), stem)
