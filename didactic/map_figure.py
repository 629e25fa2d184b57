"""The map's figures: the central cluster's share of the samples at every setting, and along training."""

from __future__ import annotations

import textwrap
from pathlib import Path

import matplotlib
import pandas as pd

from didactic import mixture
from didactic.configuration import Grid, MixtureConfig
from didactic.grid import ANY

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.colors import BoundaryNorm  # noqa: E402
from matplotlib.patches import Rectangle  # noqa: E402

FEATURES = {
    "coordinates": "coordinates",
    "coordinates_and_one": "coordinates and 1",
    "fourier": "Fourier features",
    ANY: "",
}
BORDERS = [0, 0.002, 0.005, 0.01, mixture.COVERED, 0.05, 0.1, 0.2, 1.0]  # of the colours
LEAST = 5e-4  # drawn: one of the 2,000 measured samples
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999"]


def _save(figure, stem: Path) -> None:
    for suffix in (".png", ".pdf"):
        figure.savefig(stem.with_suffix(suffix), dpi=200)
    plt.close(figure)


def _panels(scores: pd.DataFrame, grid: Grid, config: MixtureConfig) -> list[list[tuple[str, str, int]]]:
    """Rows of panels (method, features, group size): first those without features, then a row per method."""
    mine = scores[["method", "features", "group_size"]].drop_duplicates()
    plain, rows = [], []
    for method in grid.rows:
        every = mine[mine["method"] == method]
        if (every["features"] == ANY).all():
            plain.append((method, ANY, int(every["group_size"].iloc[0])))
        else:
            rows.append([(method, s.features, s.group_size) for s in grid.shapings])
    return [plain, *rows]


def draw_map(
    scores: pd.DataFrame, checked: pd.DataFrame, config: MixtureConfig, name: str, stem: Path
) -> None:
    """Heat maps over learning rate and landscape, at the end of training, means over seeds.

    A cell shows the central share in per cent and the number of modes covered. Hatched: the setting fails the
    checks; framed: the central mode is found in most seeds.
    """
    grid = config.map.grids[name]
    last = scores[(scores["grid"] == name) & (scores["length"] == 1)]
    able = checked[(checked["grid"] == name) & (checked["length"] == 1) & checked["passes"]]
    passing = set(able[["learning_rate", "reward_width", "heights"]].itertuples(index=False, name=None))
    rows = _panels(last, grid, config)
    columns = max(len(row) for row in rows)
    rates = [training.learning_rate for training in grid.trainings]
    landscapes = [(landscape.heights, landscape.reward_width) for landscape in grid.landscapes]
    norm, colours = BoundaryNorm(BORDERS, 256), plt.get_cmap("YlGnBu")
    size = (1.2 + 0.62 * len(landscapes) * columns, 1.0 + (0.5 * len(rates) + 0.75) * len(rows))
    figure, axes = plt.subplots(len(rows), columns, figsize=size, layout="constrained", squeeze=False)
    for row, panels in zip(rows, axes, strict=True):
        for panel in panels[len(row) :]:
            panel.set_axis_off()
        for (method, features, group), panel in zip(row, panels, strict=False):
            mine = last[(last["method"] == method) & (last["features"] == features)]
            mine = mine if features == ANY else mine[mine["group_size"] == group]
            for y, rate in enumerate(rates):
                for x, (heights, width) in enumerate(landscapes):
                    here = mine[(mine["learning_rate"] == rate) & (mine["heights"] == heights)]
                    here = here[here["reward_width"] == width].groupby("measure")["value"]
                    if not len(here):
                        panel.text(x, y, "not run", ha="center", va="center", size=6, color="0.5")
                        continue
                    share = here.mean()["central_share"]
                    found = (here.get_group("central_share") >= mixture.COVERED).mean() > 0.5
                    failed = (rate, width, heights) not in passing
                    box = dict(xy=(x - 0.5, y - 0.5), width=1, height=1, linewidth=0)
                    panel.add_patch(Rectangle(**box, facecolor=colours(norm(share))))
                    if failed:
                        panel.add_patch(Rectangle(**box, fill=False, hatch="////", edgecolor="0.75"))
                    if found:
                        edge = dict(xy=(x - 0.46, y - 0.46), width=0.92, height=0.92)
                        panel.add_patch(Rectangle(**edge, fill=False, edgecolor="#D55E00", linewidth=1.6))
                    dark = norm(share) > 150
                    text = f"{100 * share:.1f}\n{here.mean()['modes']:.1f}"
                    colour = "white" if dark else "black"
                    panel.text(x, y, text, ha="center", va="center", size=6.5, color=colour, linespacing=1.1)
            title = textwrap.fill(config.rows[method].label, 38)
            if features != ANY:
                title += f"\n{FEATURES[features]}, groups of {group}"
            panel.set_title(title, size=7.5)
            panel.set(xlim=(-0.5, len(landscapes) - 0.5), ylim=(-0.5, len(rates) - 0.5))
            panel.set_xticks(range(len(landscapes)), [f"{h}\n{w:g}" for h, w in landscapes], size=6.5)
            panel.set_yticks(
                range(len(rates)), [f"{rate:g}" for rate in rates] if panel is panels[0] else [], size=6.5
            )
            panel.tick_params(length=0)
        panels[0].set_ylabel("learning rate", size=7.5)
    figure.supxlabel("heights and width of the reward's bumps", size=8)
    scale = plt.cm.ScalarMappable(norm=norm, cmap=colours)
    bar = figure.colorbar(scale, ax=axes, fraction=0.015, pad=0.01, ticks=BORDERS, spacing="uniform")
    bar.ax.set_yticklabels([f"{100 * border:g}" for border in BORDERS], size=7)
    bar.set_label("central cluster, % of the samples; 2 % covers a mode", size=7.5)
    figure.suptitle(
        "At the end of training: central share in % (above), modes covered of 5 (below).\n"
        "Framed: the central mode is found in most seeds. Hatched: the setting fails its checks.",
        size=8.5,
    )
    _save(figure, stem)


def draw_along(scores: pd.DataFrame, config: MixtureConfig, name: str, stem: Path) -> None:
    """Central share along training at a grid's first landscape, a panel per batch size.

    Lines are means over seeds, bands reach from the least to the greatest.
    """
    grid = config.map.grids[name]
    landscape, training = grid.landscapes[0], grid.trainings[0]
    at = (scores["grid"] == name) & (scores["measure"] == "central_share")
    at &= (scores["heights"] == landscape.heights) & (scores["reward_width"] == landscape.reward_width)
    shares = scores[at & (scores["learning_rate"] == training.learning_rate)]
    sizes = sorted(shares["samples"].unique())
    figure, panels = plt.subplots(
        1, len(sizes), figsize=(3.7 * len(sizes), 3.6), layout="constrained", sharey=True, squeeze=False
    )
    for samples, panel in zip(sizes, panels[0], strict=True):
        for colour, method in zip(COLOURS, grid.rows, strict=False):
            mine = shares[(shares["samples"] == samples) & (shares["method"] == method)]
            features, label = mine["features"].iloc[0], config.rows[method].label
            if features != ANY:
                mine = mine[mine["group_size"] == mine["group_size"].iloc[0]]
                label += f" ({FEATURES[features]})"
            curves = mine.pivot(index="step", columns="seed", values="value").clip(lower=LEAST)
            panel.plot(curves.index, curves.mean(axis=1), color=colour, label=label, linewidth=1.4)
            low, high = curves.min(axis=1), curves.max(axis=1)
            panel.fill_between(curves.index, low, high, color=colour, alpha=0.15, linewidth=0)
        panel.axhline(mixture.COVERED, color="0.4", linestyle=":", linewidth=1)
        panel.set(title=f"{samples:,} samples an iteration", xlabel="iteration", yscale="log")
        panel.set_ylim(0.9 * LEAST, 1.1)
        panel.title.set_size(9)
    panels[0][0].set_ylabel("central cluster's share of the samples")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncol=2, frameon=False, fontsize=7.5)
    figure.suptitle(
        f"Learning rate {training.learning_rate:g}, {landscape.heights} heights, bumps of width "
        f"{landscape.reward_width:g}; dotted: covers a mode",
        size=9,
    )
    _save(figure, stem)


def draw(scores: pd.DataFrame, checked: pd.DataFrame, config: MixtureConfig, folder: Path) -> None:
    """Per grid a heat map over learning rates and landscapes or, where it has several batch sizes, curves;
    nothing of a grid without runs."""
    for name, grid in config.map.grids.items():
        if name not in set(scores["grid"]):
            continue
        if len({training.samples for training in grid.trainings}) > 1:
            draw_along(scores, config, name, folder / name)
        else:
            draw_map(scores, checked, config, name, folder / name)
