"""The baselines beside GARDO and DDRL: what they leave of gold, unseen metrics and diversity."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from evaluation.scores import DIVERSITY, KL, check_scores, last_step
from reporting.comparison import change_from_base
from reporting.draw import Drawing, Grid, at
from reporting.figure_style import (
    BASE_MARK,
    STYLE,
    NothingToDraw,
    check_labels,
    finish,
    handles,
    method_styles,
    panels,
)
from reporting.figures.tradeoff import plot_references, proxy_rows, reference_handles

ROWS = {"gold": "gold", "unseen": "unseen metrics, change from base\n(mean, in s.d. over runs)"}
ROWS |= {DIVERSITY: "diversity"}
COLUMNS = {"proxy": "proxy", "kl": "KL from the base (nats per image)"}


def _means(rows: pd.DataFrame, proxies: Mapping[str, str], base: str, task: str, base_method: str):
    """Means over seeds by method: columns proxy, kl, gold, unseen and diversity."""
    own = rows[rows["own"]]
    columns = {
        "proxy": proxy_rows(rows, base, task, proxies),
        "kl": rows[rows["metric"] == KL],
        "gold": own[own["role"] == "gold"],
        DIVERSITY: own[own["role"] == DIVERSITY],
    }
    means = {name: values.groupby("method")["value"].mean() for name, values in columns.items()}
    unseen = rows[rows["role"] == "unseen"]
    if len(unseen):
        means["unseen"] = change_from_base(unseen, base_method).groupby("method").mean()
    return pd.DataFrame(means)


def baselines(
    scores: pd.DataFrame,
    stem: str | Path,
    labels: Mapping[str, str],
    *,
    proxies: Mapping[str, str],
    references: Mapping[str, list[str]],
    base_method: str = "base",
) -> Figure:
    """Gold, unseen metrics and diversity (rows) over the proxy and over the KL (columns), means over seeds.

    The scores are those of one base and task at each run's last step. Methods without training are curves.
    """
    check_scores(scores)
    check_labels(scores, labels)
    if scores.empty or KL not in set(scores["metric"]):
        raise NothingToDraw(f"no baseline has its {KL}")
    (base, task), *_ = scores[["base", "task"]].itertuples(index=False, name=None)
    means = _means(scores, proxies, base, task, base_method)
    styles, drawn = method_styles(list(labels), base_method), {base_method}
    grouped = {method for methods in references.values() for method in methods}
    rows = [name for name in ROWS if name in means and means[name].notna().any()]
    with rc_context(STYLE):
        figure, axes = panels(len(rows), len(COLUMNS))
        for name, line in zip(rows, axes, strict=True):
            for ax, x in zip(line, COLUMNS, strict=True):
                points = means[[x, name]].dropna().rename(columns={name: "value"})
                for method in (m for m in labels if m in points.index and m not in grouped):
                    look = BASE_MARK if method == base_method else styles[method] | {"linestyle": "none"}
                    ax.plot(points[x][method], points["value"][method], **look)
                    drawn.add(method)
                drawn |= plot_references(ax, points, references, x, base_method)
                if x == "kl":
                    root = (lambda v: v.clip(min=0) ** 0.5, lambda v: v**2)
                    ax.set_xscale("function", functions=root)
                    ax.set_xlim(left=0)
                    ax.locator_params(axis="x", nbins=4)
                ax.set_ylabel(ROWS[name] if x == "proxy" else "")
                ax.set_xlabel(COLUMNS[x] if name == rows[-1] else "")
        figure.suptitle(f"{base}, {task}")
        legend = handles(drawn & set(labels), labels, styles, False, True)
        return finish(figure, legend + reference_handles(references, drawn), stem)


def drawings(grid: Grid) -> Iterator[Drawing]:
    """One figure for each base and task that has a baseline which no other figure is about."""
    names, references = grid.sections.baselines.methods, grid.references
    shown = [*names, *sum(references.values(), [])]
    last = last_step(grid.results.scores.table)
    last = last[last["method"].isin(shown)]
    own = {*sum(references.values(), []), *names} - set(grid.sections.curves.methods)
    for base, task in grid.results.places():
        rows = at(last, base, task)
        if own & set(rows["method"]):
            settings = {"proxies": grid.results.settings.proxies, "references": references}
            yield (
                f"baselines_{base}_{task}",
                lambda stem, rows=rows, settings=settings: baselines(rows, stem, grid.labels, **settings),
            )
