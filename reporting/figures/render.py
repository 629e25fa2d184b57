"""Every figure of a grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd

from evaluation.score import count_objects
from reporting import trajectories
from reporting.figures import bars, curves, samples, tradeoff, turn
from reporting.figures.style import NothingToDraw
from reporting.results import Results
from scenes.prompts import read as read_prompts
from training.configuration import load_run, read_yaml
from training.files import replacing

FIGURES = Path("config/figures.yaml")
NOT_DRAWN = "not_drawn.txt"
Drawing = tuple[str, Callable[[Path], object]]  # name of the file, and what draws it at a stem


def _labels(results: Results, spec: dict) -> dict[str, str]:
    """All methods, those of fewer curves first, so that these look most unlike each other."""
    labels = results.settings["methods"]
    first = [*spec["turn"]["methods"], *spec["curves"]["methods"]]
    return {m: labels[m] for m in dict.fromkeys([*first, *labels]) if m in labels}


def _kept(data: pd.DataFrame, methods: list[str]) -> pd.DataFrame:
    return data[data["method"].isin(methods)]


def _of_training(results: Results, spec: dict) -> Iterator[Drawing]:
    labels, history = _labels(results, spec), results.histories()
    shown = _kept(history, spec["curves"]["methods"])
    counted = curves.over_images(shown, results.scores)
    yield (
        "learning_curves_images",
        lambda stem: curves.logged_curves(counted, stem, labels, x=curves.IMAGES),
    )
    yield (
        "kl_and_gate",
        lambda stem: curves.logged_curves(
            shown, stem, labels, curves.REGULARISED, logarithmic=("train/kl_loss",)
        ),
    )

    def multi_reward(stem: Path):
        chosen = spec["multi_reward"]
        if chosen["subject"] not in set(history["method"]):
            raise NothingToDraw(f"no run of {chosen['subject']}")
        tasks = history.loc[history["method"] == chosen["subject"], ["base", "task"]].drop_duplicates()
        rows = _kept(history, chosen["methods"]).merge(tasks)
        auxiliary = {n: n for n in sorted(set(rows["name"])) if n.startswith("reward/scene_")}
        return curves.logged_curves(rows, stem, labels, curves.TRAINED | auxiliary)

    yield "multi_reward", multi_reward
    course = read_yaml(trajectories.LAYOUT)
    windows = trajectories.windowed(history, course["windows"])
    common = (labels, spec["turn"]["methods"], course["control"])
    yield "proxy_versus_gold", lambda stem: turn.gold_over_proxy(windows, stem, *common)
    for base, task in results.scores[["base", "task"]].drop_duplicates().itertuples(index=False):
        mine = windows[(windows["base"] == base) & (windows["task"] == task)]
        yield f"turn_{base}_{task}", lambda stem, mine=mine: turn.over_steps(mine, stem, *common)


def _of_scores(results: Results, spec: dict) -> Iterator[Drawing]:
    labels, proxies = _labels(results, spec), results.settings["proxies"]
    methods = spec["curves"]["methods"]
    scores = _kept(results.scores, methods)
    common = {"labels": labels, "proxies": proxies}
    yield (
        "over_optimisation",
        lambda stem: tradeoff.over_optimisation(scores, stem, suites=results.suites, **common),
    )
    yield "pareto", lambda stem: tradeoff.pareto(results.scores, stem, shown=methods, **common)
    yield (
        "diversity",
        lambda stem: bars.diversity(results.scores, results.images, stem, labels, results.suites),
    )

    def counting(stem: Path):
        if "counting" not in results.settings["suites"]:
            raise NothingToDraw("the grid has no task counting")
        prompts = read_prompts(Path(results.settings["suites"]["counting"]["prompts"]))
        counts = [count_objects(p) for p in prompts]
        return bars.accuracy_by_count(scores, results.images, counts, stem, labels)

    yield "counting", counting


def _of_task(results: Results, spec: dict, base: str, task: str) -> Iterator[Drawing]:
    labels, suite = _labels(results, spec), results.settings["suites"][task]
    rows = results.scores[(results.scores["base"] == base) & (results.scores["task"] == task)]
    own = _kept(rows[rows["suite"] == suite["name"]], spec["curves"]["methods"])
    counted = curves.over_images(own[own["method"] != "base"], results.scores)
    counted = pd.concat([counted, own[own["method"] == "base"]])
    proxy, runs = results.settings["proxies"][task], results.folder / "runs"
    prompts, name = read_prompts(Path(suite["prompts"])), f"{base}_{task}"
    yield (
        f"evaluation_{name}",
        lambda stem: curves.evaluated_curves(own, stem, labels, proxy),
    )
    yield (
        f"evaluation_images_{name}",
        lambda stem: curves.evaluated_curves(counted, stem, labels, proxy, x=curves.IMAGES),
    )
    pictured = rows[rows["suite"] == suite["name"]], runs
    common = (suite["name"], prompts, labels)
    yield (
        f"samples_{name}",
        lambda stem: samples.sample_grid(*pictured, *common, spec["sample_grid"], stem),
    )
    yield (
        f"samples_over_training_{name}",
        lambda stem: samples.sample_steps(*pictured, *common, spec["sample_steps"], stem),
    )

    def uncertain(stem: Path):
        training = load_run(runs / rows["run"].iloc[0]).task_settings
        gate = {"proxy": training.proxy, "auxiliary": training.auxiliary}
        arguments = (*pictured, results.images, *common, gate, spec["uncertain"], stem)
        return samples.most_uncertain(*arguments)

    yield f"uncertain_{name}", uncertain


def drawings(results: Results, spec: dict) -> Iterator[Drawing]:
    yield from _of_training(results, spec)
    yield from _of_scores(results, spec)
    for base, task in results.scores[["base", "task"]].drop_duplicates().itertuples(index=False):
        yield from _of_task(results, spec, base, task)


def render_figures(results: Results, out: Path) -> list[Path]:
    """Every figure as png and pdf; ``not_drawn.txt`` has a line for each one whose runs are absent."""
    spec, absent = read_yaml(FIGURES), []
    with replacing(out) as temporary:
        temporary.mkdir()
        for name, draw in drawings(results, spec):
            try:
                draw(temporary / name)
            except NothingToDraw as reason:
                absent.append(f"{name}: {reason}")
        if absent:
            (temporary / NOT_DRAWN).write_text("\n".join(absent) + "\n")
        names = sorted(path.name for path in temporary.iterdir())
    return [out / name for name in names]
