"""How every figure looks: sizes, colours, panels, legends, files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

SIZE = 8.5  # points, of all text
STYLE = {"axes.grid": True, "grid.color": "0.92", "axes.edgecolor": "0.4", "axes.linewidth": 0.8}
STYLE |= {"font.size": SIZE, "axes.titlesize": SIZE + 1, "axes.labelsize": SIZE, "legend.frameon": False}
STYLE |= {"legend.fontsize": SIZE, "xtick.labelsize": SIZE, "ytick.labelsize": SIZE, "pdf.fonttype": 42}
# Okabe and Ito's colour-blind-safe colours without yellow, which vanishes on paper; a grey and Tol's wine.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#666666", "#882255")
MARKERS = "osD^vP<X>"
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (6, 1.5, 1.5, 1.5)), (0, (3, 1, 1, 1, 1, 1)))
BASE_MARK = dict(
    color="black", marker="*", markersize=11, linestyle="none", markeredgecolor="white", zorder=5
)


class NothingToDraw(ValueError):
    """The runs that a figure is about are absent; the message says which."""


def method_styles(methods: Sequence[str], base_method: str) -> dict[str, dict]:
    """Line style per method. Dashes and markers change with the colours, by counts that share no divisor
    with theirs, so that a colour that returns looks different and grey print stays readable."""
    styles = {base_method: BASE_MARK}
    for i, method in enumerate(m for m in methods if m != base_method):
        looks = zip(("color", "linestyle", "marker"), (COLOURS, DASHES, MARKERS), strict=True)
        styles[method] = {key: choices[i % len(choices)] for key, choices in looks}
    return styles


def check_labels(data: pd.DataFrame, labels: Mapping[str, str]) -> None:
    missing = sorted(set(data["method"]) - set(labels))
    if missing:
        raise ValueError(f"methods without a label: {missing}")


def blocks_of(data: pd.DataFrame) -> list[tuple[tuple[str, str], pd.DataFrame]]:
    """((base, task), rows) in the order in which the data has them."""
    return list(data.groupby(["base", "task"], sort=False))


def panels(rows: int, columns: int, width: float = 3.1, height: float = 2.6) -> tuple[Figure, np.ndarray]:
    """A figure of equal panels, sized in inches."""
    if not columns or not rows:
        raise NothingToDraw("no base and task has the rows that it needs")
    figure = Figure(figsize=(1.0 + width * columns, 0.9 + height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.06)
    for ax in axes.flat:
        sns.despine(ax=ax)
        ax.set_axisbelow(True)
        ax.locator_params(nbins=6)
    return figure, axes


def handles(
    present: Iterable[str], labels: Mapping[str, str], styles, lines: bool, marks: bool
) -> list[Line2D]:
    """Legend entries of the drawn methods, in the labels' order."""
    hide = ({} if lines else {"linestyle": "none"}) | ({} if marks else {"marker": ""})
    keep = [m for m in labels if m in set(present)]
    return [
        Line2D([], [], label=labels[m], **(styles[m] | (hide if styles[m] is not BASE_MARK else {})))
        for m in keep
    ]


def finish(figure: Figure, legend: Sequence[Line2D], stem: str | Path) -> Figure:
    """Legend below the panels, where no data can be under it."""
    if legend:
        entry = (7 + 0.55 * max(len(h.get_label()) for h in legend)) * SIZE / 72  # inches, estimated
        columns = max(1, min(len(legend), int(figure.get_figwidth() / entry)))
        figure.set_figheight(figure.get_figheight() + 0.18 * -(-len(legend) // columns))
        figure.legend(handles=legend, loc="outside lower center", ncols=columns, handlelength=3.2)
    return save(figure, stem)


def save(figure: Figure, stem: str | Path) -> Figure:
    """png and pdf without dates, so that equal data give equal files."""
    Path(stem).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(f"{stem}.png", dpi=150, metadata={"Software": None})
    figure.savefig(f"{stem}.pdf", metadata={"CreationDate": None})
    return figure
