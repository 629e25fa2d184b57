"""What a gain in the proxy costs: in KL from the base, in the gold reward, in the unseen metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from evaluation.scores import KL, check_scores, last_step
from reporting.comparison import change_from_base
from reporting.draw import Drawing, Grid
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
from reporting.figures.curves import from_base
from reporting.statistics import bootstrap_interval

REFERENCE = dict(color="0.35", linewidth=1.0, marker=".", markersize=5, zorder=1.5)
REFERENCE_DASHES = ("-", (0, (4, 2)), (0, (1, 1.5)))
OTHER = dict(color="0.7", marker=".", linestyle="none", markersize=6)


def proxy_rows(rows: pd.DataFrame, base: str, task: str, proxies: Mapping[str, str] | None) -> pd.DataFrame:
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


def over_optimisation(
    scores: pd.DataFrame,
    stem: str | Path,
    labels: Mapping[str, str],
    *,
    proxies: Mapping[str, str] | None = None,
    base_method: str = "base",
    references: Mapping[str, list[str]] | None = None,
) -> Figure:
    """Proxy and gold over the KL from the base model: one column per (base, task), means over seeds.

    ``references``: label -> methods without training, such as best-of-n for several n, drawn as one curve.

    Gold is that of the task's own suite. The KL axis has a square-root scale, as in Gao et al. (arXiv
    2210.10760).
    """
    check_scores(scores)
    check_labels(scores, labels)
    styles, drawn, references = method_styles(list(labels), base_method), set(), references or {}
    grouped = {method for methods in references.values() for method in methods}
    blocks = [(k, r) for k, r in blocks_of(scores) if {KL} <= set(r["metric"])]
    if not blocks:
        raise NothingToDraw(f"no run has {KL}; sample its images again")
    with rc_context(STYLE):
        figure, axes = panels(2, len(blocks))
        for column, ((base, task), rows) in enumerate(blocks):
            gold = rows[(rows["role"] == "gold") & rows["own"]]
            shown = {"proxy": proxy_rows(rows, base, task, proxies), "gold": gold}
            kl = (
                from_base(rows[rows["metric"] == KL], base_method).groupby(["method", "step"])["value"].mean()
            )
            for ax, (name, values) in zip(axes[:, column], shown.items(), strict=True):
                means = from_base(values, base_method).groupby(["method", "step"])["value"].mean()
                points = pd.DataFrame({"kl": kl, "value": means}).dropna().reset_index()
                for method in (m for m in labels if m != base_method and m not in grouped):
                    path = points[points["method"] == method].sort_values("step")
                    if len(path):
                        style = styles[method] | {"linewidth": 1.3, "markersize": 4}
                        ax.plot(path["kl"], path["value"], **style)
                        drawn.add(method)
                start = points[points["method"] == base_method]
                ax.plot(start["kl"], start["value"], clip_on=False, **BASE_MARK)
                drawn |= plot_references(ax, points.set_index("method"), references, "kl", base_method)
                root = (lambda v: v.clip(min=0) ** 0.5, lambda v: v**2)
                ax.set_xscale("function", functions=root)
                ax.set_xlim(left=0)
                ax.locator_params(axis="x", nbins=4)
                ax.set_title(f"{base}, {task}" if ax is axes[0, column] else "")
                ax.set_ylabel(name if column == 0 else "")
                ax.set_xlabel("KL from the base (nats per image)" if ax is axes[-1, column] else "")
        legend = handles({*drawn, base_method} & set(labels), labels, styles, True, True)
        return finish(figure, legend + reference_handles(references, drawn), stem)


def plot_references(
    ax: Axes, points: pd.DataFrame, references: Mapping[str, list[str]], x: str, base_method: str
) -> set[str]:
    """Curves from the base through methods without training, by ``x``; returns the labels of those drawn.

    ``points``: columns ``x`` and value, by method.
    """
    drawn = set()
    for number, (label, methods) in enumerate(references.items()):
        present = points[points.index.isin(methods)]
        if len(present):
            path = points[points.index.isin([base_method, *methods])].sort_values(x)
            ax.plot(path[x], path["value"], **REFERENCE, linestyle=REFERENCE_DASHES[number % 3])
            drawn.add(label)
    return drawn


def reference_handles(references: Mapping[str, list[str]], drawn: set[str]) -> list[Line2D]:
    """Legend entries of the references that were drawn."""
    return [
        Line2D([], [], label=label, **REFERENCE, linestyle=REFERENCE_DASHES[number % 3])
        for number, label in enumerate(references)
        if label in drawn
    ]


def pareto(
    scores: pd.DataFrame,
    stem: str | Path,
    labels: Mapping[str, str],
    *,
    shown: list[str] | None = None,
    proxies: Mapping[str, str] | None = None,
    base_method: str = "base",
) -> Figure:
    """Last step: proxy against the mean of the unseen metrics, with 95 % bootstrap whiskers over seeds.

    One panel per (base, task). The grey steps bound what the methods reached: no method lies above and to the
    right of them. Methods beside ``shown`` are grey dots.
    """
    check_scores(scores)
    check_labels(scores, labels)
    styles, shown = method_styles(list(labels), base_method), list(labels) if shown is None else shown
    blocks = [(k, r) for k, r in blocks_of(last_step(scores)) if {"proxy", "unseen"} <= set(r["role"])]
    drawn, others = set(), False
    with rc_context(STYLE):
        figure, axes = panels(1, len(blocks))
        for ax, ((base, task), rows) in zip(axes[0], blocks, strict=True):
            proxy = proxy_rows(rows, base, task, proxies).set_index(["method", "seed"])["value"]
            unseen, points = change_from_base(rows[rows["role"] == "unseen"], base_method), {}
            for method in (m for m in labels if m in proxy.index and m in unseen.index):
                x, y = bootstrap_interval(proxy[method]), bootstrap_interval(unseen[method])
                points[method] = (x.mean, y.mean)
                if method not in shown:
                    ax.plot(x.mean, y.mean, **OTHER)
                    others = True
                    continue
                whiskers = [[[v.mean - v.low], [v.high - v.mean]] for v in (x, y)]
                style = styles[method] | {"linestyle": "none"}
                ax.errorbar(x.mean, y.mean, yerr=whiskers[1], xerr=whiskers[0], elinewidth=1, **style)
                drawn.add(method)
            best = [
                p
                for p in points.values()
                if not any(q[0] >= p[0] and q[1] >= p[1] and q != p for q in points.values())
            ]
            steps = dict(color="0.6", linewidth=1, zorder=1, drawstyle="steps-pre")
            ax.plot(*zip(*sorted(best), strict=True), **steps)
            ax.axhline(0, color="0.6", linewidth=0.8, linestyle=":", zorder=1)
            y_label = "unseen metrics, change from base\n(mean, in s.d. over runs)"
            ax.set(title=f"{base}, {task}", xlabel="proxy", ylabel=y_label if ax is axes[0, 0] else "")
        legend = handles(drawn, labels, styles, False, True)
        return finish(figure, legend + [Line2D([], [], label="other methods", **OTHER)] * others, stem)


def drawings(grid: Grid) -> Iterator[Drawing]:
    scores, proxies = grid.results.scores.table, grid.results.settings.proxies
    methods, references = grid.sections.curves.methods, grid.references
    shown = scores[scores["method"].isin([*methods, *sum(references.values(), [])])]
    yield (
        "over_optimisation",
        lambda stem: over_optimisation(shown, stem, grid.labels, proxies=proxies, references=references),
    )
    yield "pareto", lambda stem: pareto(scores, stem, grid.labels, shown=methods, proxies=proxies)
