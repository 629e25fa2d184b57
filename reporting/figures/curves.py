"""Curves over training: rewards of the rollouts, evaluated metrics, KL loss and gated share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reporting.draw import Drawing, Grid, at
from reporting.figure_style import (
    STYLE,
    NothingToDraw,
    blocks_of,
    check_labels,
    finish,
    handles,
    method_styles,
    panels,
)

TRAINED = {"reward/proxy_mean": "proxy (training reward)", "reward/gold_mean": "gold reward"}
REGULARISED = {"train/kl_loss": "KL loss, to the reference", "train/gated_share": "gated share"}
STEPS, IMAGES = "step", "generated images"
DECADES = 1e-5  # least shown of a logarithmic axis, as a share of the most
PER_ROW = 3  # panels of a figure about one task


def draw_curve(ax: Axes, runs: pd.DataFrame, style: dict, marked: bool = False) -> None:
    """Mean over seeds with a band from the lowest to the highest, which for few seeds says more than an
    interval. ``runs``: one column per run over x."""
    style = style | ({} if marked else {"marker": ""}) | {"linewidth": 1.4, "markersize": 4}
    ax.plot(runs.index, runs.mean(axis=1), **style)
    if runs.shape[1] > 1:
        low, high = runs.min(axis=1), runs.max(axis=1)
        ax.fill_between(runs.index.to_numpy(), low, high, color=style["color"], alpha=0.12, linewidth=0)


def logged_curves(
    history: pd.DataFrame,
    stem: str | Path,
    labels: Mapping[str, str],
    names: Mapping[str, str] = TRAINED,
    *,
    x: str = STEPS,
    base_method: str = "base",
    smooth: int | None = None,
    logarithmic: tuple[str, ...] = (),
) -> Figure:
    """Logged numbers over training: one column per (base, task), one row per name.

    ``history``: run, base, task, method, seed, step, name, value, and ``x`` where it is not the step.
    ``smooth``: steps of a centred running mean per run (default a thirtieth of the longest run), because a
    batch mean is noisy.
    """
    history = history[history["name"].isin(list(names)) & (history["method"] != base_method)]
    if history.empty:
        raise NothingToDraw(f"no run logged {' or '.join(names)}")
    check_labels(history, labels)
    blocks, styles = blocks_of(history), method_styles(list(labels), base_method)
    names = {name: title for name, title in names.items() if name in set(history["name"])}
    smooth = smooth or max(1, int(history["step"].max()) // 30)
    with rc_context(STYLE):
        figure, axes = panels(len(names), len(blocks))
        for column, ((base, task), rows) in enumerate(blocks):
            for ax, (name, title) in zip(axes[:, column], names.items(), strict=True):
                named = rows[rows["name"] == name]
                if name in logarithmic:  # where the first step's value is zero up to rounding
                    named = named[named["value"] > named["value"].max() * DECADES]
                for method in labels:
                    mine = named[named["method"] == method]
                    if len(mine):
                        runs = mine.pivot_table(index=x, columns="run", values="value")
                        runs = runs.rolling(smooth, center=True, min_periods=1).mean()
                        draw_curve(ax, runs, styles[method])
                if name in logarithmic:
                    ax.set_yscale("log")
                ax.set_title(f"{base}, {task}" if ax is axes[0, column] else "")
                ax.set_ylabel(title if column == 0 else "")
                ax.set_xlabel(x if ax is axes[-1, column] else "")
        return finish(figure, handles(set(history["method"]), labels, styles, True, False), stem)


def from_base(rows: pd.DataFrame, base_method: str) -> pd.DataFrame:
    """Every trained method's rows preceded by the base model's of that metric, its seeds' mean, at step 0."""
    start = rows[rows["method"] == base_method].groupby(["suite", "metric"], as_index=False)["value"].mean()
    trained = (rows["method"] != base_method) & (rows["step"] > 0)
    runs = rows.loc[trained, ["run", "method"]].drop_duplicates()
    return pd.concat([runs.merge(start.assign(step=0), how="cross"), rows], ignore_index=True)


def images_per_step(scores: pd.DataFrame) -> pd.Series:
    """Images that each run generated per step of training; runs that generate none are left out."""
    made = scores[(scores["metric"] == "images_generated") & (scores["value"] > 0) & (scores["step"] > 0)]
    return (made["value"] / made["step"]).set_axis(made["run"])


def over_images(data: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """``data`` with a column of generated images; runs without any are left out."""
    rate = images_per_step(scores)
    kept = data[data["run"].isin(rate.index)]
    return kept.assign(**{IMAGES: kept["step"] * kept["run"].map(rate).to_numpy()})


def evaluated_curves(
    rows: pd.DataFrame,
    stem: str | Path,
    labels: Mapping[str, str],
    proxy: str,
    *,
    x: str = STEPS,
    base_method: str = "base",
) -> Figure:
    """Test metrics of one (base, task) at the evaluated steps, from the base model on: a panel each.

    ``rows``: scores on the task's own suite. Proxy first, then gold, the unseen metrics and diversity.
    """
    check_labels(rows, labels)
    order = {"proxy": 0, "gold": 1, "unseen": 2, "diversity": 3}
    rows = rows[rows["role"].isin(order) & ((rows["role"] != "proxy") | (rows["metric"] == proxy))]
    if not len(rows[rows["method"] != base_method]):
        raise NothingToDraw("no trained run")
    roles = rows.drop_duplicates("metric").set_index("metric")["role"]
    metrics = sorted(roles.index, key=lambda m: (order[roles[m]], m))
    rows, styles = from_base(rows, base_method), method_styles(list(labels), base_method)
    if x == IMAGES:
        rows[IMAGES] = rows[IMAGES].fillna(0)
    with rc_context(STYLE):
        columns = min(PER_ROW, len(metrics))
        figure, axes = panels(-(-len(metrics) // columns), columns, height=2.2)
        for ax, metric in zip(axes.flat, metrics, strict=False):
            for method in (m for m in labels if m != base_method):
                mine = rows[(rows["metric"] == metric) & (rows["method"] == method)]
                if len(mine):
                    runs = mine.pivot_table(index=x, columns="run", values="value")
                    draw_curve(ax, runs, styles[method], marked=True)
            role = roles[metric]
            ax.set_title(metric if role in (metric, "diversity") else f"{metric} ({role})")
            ax.set_xlabel(x)
        for ax in axes.flat[len(metrics) :]:
            ax.set_axis_off()
        drawn = set(rows["method"]) - {base_method}
        return finish(figure, handles(drawn, labels, styles, True, True), stem)


def drawings(grid: Grid) -> Iterator[Drawing]:
    labels, history, scores = grid.labels, grid.results.histories, grid.results.scores.table
    shown = grid.shown(history)
    yield (
        "learning_curves_images",
        lambda stem: logged_curves(over_images(shown, scores), stem, labels, x=IMAGES),
    )
    logarithmic = ("train/kl_loss",)
    yield (
        "kl_and_gate",
        lambda stem: logged_curves(shown, stem, labels, REGULARISED, logarithmic=logarithmic),
    )

    def multi_reward(stem: Path) -> Figure:
        chosen = grid.sections.multi_reward
        if chosen.subject not in set(history["method"]):
            raise NothingToDraw(f"no run of {chosen.subject}")
        tasks = history.loc[history["method"] == chosen.subject, ["base", "task"]].drop_duplicates()
        rows = history[history["method"].isin(chosen.methods)].merge(tasks)
        auxiliary = {n: n for n in sorted(set(rows["name"])) if n.startswith("reward/scene_")}
        return logged_curves(rows, stem, labels, TRAINED | auxiliary)

    yield "multi_reward", multi_reward
    for base, task in grid.results.places():
        own, proxy = grid.shown(at(scores[scores["own"]], base, task)), grid.results.settings.proxies[task]
        is_base = own["method"] == "base"
        counted = pd.concat([over_images(own[~is_base], scores), own[is_base]])
        for name, rows, x in ("evaluation", own, STEPS), ("evaluation_images", counted, IMAGES):
            yield (
                f"{name}_{base}_{task}",
                lambda stem, rows=rows, proxy=proxy, x=x: evaluated_curves(rows, stem, labels, proxy, x=x),
            )
