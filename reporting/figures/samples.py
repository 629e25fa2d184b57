"""Pictures: the same prompts and noise down the methods and over training, and what the gate would pick."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from core.media import film_strip
from core.prompts import read as read_prompts
from evaluation import images as stored_images
from evaluation.scores import ByImage
from methods.maths.gate import uncertainty
from reporting.draw import Drawing, Grid, at
from reporting.figure_settings import SampleGrid, SampleSteps, Uncertain
from reporting.figure_style import NothingToDraw, save
from reporting.table_formats import decimal
from runs.configuration import TaskTraining, load_run

CELL = 0.85  # inches of one image


def load_images(run: Path, suite: str, step: int, prompts: np.ndarray) -> np.ndarray:
    """Pictures uint8 (P, k, H, W', 3) of these prompts at one evaluated step; of clips, film strips."""
    path = stored_images.path_of(run / "images", suite, step)
    if not path.exists():
        raise NothingToDraw(f"{path} is absent; evaluating the run makes it")
    media = stored_images.load(path, prompts, stored_images.per_prompt(path))
    pictures = [film_strip(pixels) for pixels in media.reshape(-1, *media.shape[2:])]
    return np.stack(pictures).reshape(*media.shape[:2], *pictures[0].shape)


def _strip(ax: Axes, images: np.ndarray) -> None:
    """k pictures (k, H, W, 3) side by side."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255)
    ax.imshow(np.concatenate(list(padded), axis=1), interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def _caption(ax: Axes, text: str) -> None:
    words = text.replace(" on ", "\non ").replace(" and ", "\nand ")
    ax.set_ylabel(words, rotation=0, ha="right", va="center", fontsize=8)


def _grid(rows: int, columns: int, strip: int, left: float) -> tuple[Figure, np.ndarray]:
    size = (CELL * strip * columns + left, (CELL + 0.05) * rows + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.02)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _chosen(prompts: list[dict], count: int) -> np.ndarray:
    return np.linspace(0, len(prompts) - 1, count).astype(int)


def sample_grid(
    rows: pd.DataFrame,
    runs: Path,
    suite: str,
    prompts: list[dict],
    labels: Mapping[str, str],
    spec: SampleGrid,
    stem: Path,
) -> Figure:
    """The same prompts and noise down the methods of ``spec`` that ran: first seed, last step.

    ``rows``: scores of one base and task; ``runs``: the folder of the runs.
    """
    seed, chosen = rows["seed"].min(), _chosen(prompts, spec.prompts)
    methods = [m for m in spec.methods if m in set(rows.loc[rows["seed"] == seed, "method"])]
    if not methods:
        raise NothingToDraw(f"no run of {', '.join(spec.methods)}")
    figure, axes = _grid(len(chosen), len(methods), spec.images_per_method, 1.5)
    for column, method in enumerate(methods):
        mine = rows[(rows["method"] == method) & (rows["seed"] == seed)]
        images = load_images(runs / mine["run"].iloc[0], suite, mine["step"].max(), chosen)
        for row, prompt in enumerate(chosen):
            ax = axes[row, column]
            _strip(ax, images[row, : spec.images_per_method])
            if column == 0:
                _caption(ax, prompts[prompt]["prompt"])
            if row == 0:
                ax.set_title(labels[method], fontsize=9)
    return save(figure, stem)


def sample_steps(
    rows: pd.DataFrame,
    runs: Path,
    suite: str,
    prompts: list[dict],
    labels: Mapping[str, str],
    spec: SampleSteps,
    stem: Path,
) -> Figure:
    """The same prompts and noise over training: a line per method, a column per evaluated step from the base.

    First seed, one image of each of ``spec``'s number of prompts.
    """
    seed, chosen = rows["seed"].min(), _chosen(prompts, spec.prompts)
    rows = rows[rows["seed"] == seed]
    base = rows[rows["method"] == spec.methods[0]]
    methods = [m for m in spec.methods[1:] if m in set(rows["method"])]
    if base.empty or not methods:
        raise NothingToDraw(f"no run of {spec.methods[0]} or of {', '.join(spec.methods[1:])}")
    steps = {m: sorted(rows.loc[rows["method"] == m, "step"].unique()) for m in methods}
    columns = 1 + max(map(len, steps.values()))
    figure, axes = _grid(len(methods), columns, len(chosen), 1.5)
    for ax in axes.flat:
        ax.set_axis_off()
    start = load_images(runs / base["run"].iloc[0], suite, base["step"].max(), chosen)
    for row, method in enumerate(methods):
        run = runs / rows.loc[rows["method"] == method, "run"].iloc[0]
        taken = [(0, start), *((s, load_images(run, suite, s, chosen)) for s in steps[method])]
        for ax, (step, images) in zip(axes[row], taken, strict=False):
            ax.set_axis_on()
            _strip(ax, images[:, 0])
            if row == 0 or steps[method] != steps[methods[0]]:
                ax.set_title(f"step {step}", fontsize=9)
        _caption(axes[row, 0], labels[method])
    return save(figure, stem)


def most_uncertain(
    rows: pd.DataFrame,
    runs: Path,
    images: ByImage,
    suite: str,
    prompts: list[dict],
    labels: Mapping[str, str],
    gate: TaskTraining,
    spec: Uncertain,
    stem: Path,
) -> Figure:
    """The test images that GARDO's gate would penalise first, and those it trusts most: U above, gold below.

    ``gate``: the task in training, whose proxy and auxiliary rewards the gate sees. U (GARDO Eq. 7) is taken
    over all images of the last step of a run, of the first seed, as one batch.
    """
    seed, count = rows["seed"].min(), spec.images
    mine = rows[(rows["seed"] == seed) & (rows["suite"] == suite)]
    last = mine.groupby("method")[["run", "step"]].max()
    drawn = []
    for method in (m for m in spec.methods if m in last.index):
        run, step = last.loc[method]
        cells = [images.get((run, step, suite, metric)) for metric in (gate.proxy, *gate.auxiliary)]
        if all(cell is not None for cell in cells) and len(cells) > 1:
            drawn.append((method, run, step, cells))
    if not drawn:
        raise NothingToDraw(f"no single-image scores of {gate.proxy} and {', '.join(gate.auxiliary)}")
    figure, axes = _grid(2 * len(drawn), count, 1, 1.8)
    figure.set_figheight(figure.get_figheight() * 1.45)
    for place, (method, run, step, cells) in enumerate(drawn):
        scores = [torch.from_numpy(cell.values.flatten()) for cell in cells]
        u = uncertainty(scores[0], torch.stack(scores[1:]), "paper").numpy()
        order, k = np.argsort(-u, kind="stable"), cells[0].values.shape[1]
        pixels = load_images(runs / run, suite, step, np.arange(len(prompts)))
        gold = images.get((run, step, suite, "gold"))
        for line, (title, picked) in enumerate({"most": order[:count], "least": order[::-1][:count]}.items()):
            for ax, index in zip(axes[2 * place + line], picked, strict=True):
                prompt = cells[0].prompts[index // k]
                _strip(ax, pixels[prompt, index % k][None])
                ax.set_title(f"U = {decimal(u[index], 2)}", fontsize=7.5, pad=2)
                below = f"proxy {decimal(scores[0][index].item(), 2)}"
                below += f"\ngold {decimal(gold.values.flatten()[index], 2)}" if gold else ""
                ax.set_xlabel(below, fontsize=7.5, labelpad=2)
            _caption(axes[2 * place + line, 0], f"{labels[method]},\n{title} uncertain")
    return save(figure, stem)


def drawings(grid: Grid) -> Iterator[Drawing]:
    results, labels = grid.results, grid.labels
    runs, scores = results.folder / "runs", results.scores.table
    for base, task in results.places():
        suite, rows = results.settings.suites[task], at(scores[scores["own"]], base, task)
        common = (suite.name, read_prompts(Path(suite.prompts)), labels)
        for name, draw, spec in (
            ("samples", sample_grid, grid.sections.sample_grid),
            ("samples_over_training", sample_steps, grid.sections.sample_steps),
        ):
            arguments = (rows, runs, *common, spec)
            yield (
                f"{name}_{base}_{task}",
                lambda stem, draw=draw, arguments=arguments: draw(*arguments, stem),
            )

        def uncertain(stem: Path, rows=rows, common=common) -> Figure:
            gate = load_run(runs / rows["run"].iloc[0]).task_settings
            spec = grid.sections.uncertain
            return most_uncertain(rows, runs, results.scores.images, *common, gate, spec, stem)

        yield f"uncertain_{base}_{task}", uncertain
