"""How long tables, figures, claims and pages take from stored scores: ``python -m benchmarks.rendering``.

The grid is synthetic: real configurations of 200 runs, random scores, histories and images. Everything is
rendered in one process on one thread, as the rules do.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd

from core.command import set_threads
from core.files import to_yaml, write_text
from core.prompts import count_objects
from core.prompts import read as read_prompts
from core.settings import read_yaml
from evaluation import images as stored_images
from evaluation.configuration import EvaluationConfig, load_evaluation, roles
from evaluation.scores import COSTS, DIFFUSION_LOSS, KL
from runs.config_files import load_task
from runs.configuration import RunConfig
from runs.resolve import grid_rows, resolve_grid
from workflow.plan import rendering_settings
from workflow.rendering import filled_tables

BASE = "tiny-sd3"
SEEDS = [1, 2, 3, 4, 5]
METHODS = {"ocr": 24, "geneval": 8, "counting": 8}  # 40 rows of five seeds
REWARDS = ("proxy", "gold", "scene_aesthetic", "scene_preference", "scene_text_score", "scene_preference_vit")
LOGGED = (*(f"reward/{n}_mean" for n in (*REWARDS, "diversity")), "train/kl_loss", "train/gated_share")
TABLES = ["main", "counting", "ablation", "ddrl", "cost", "matched", "turn", "selection"]


def grid() -> dict:
    """A config of 200 runs over the methods of config/full.yaml, the base model and the main rows first."""
    full = read_yaml(Path("config/full.yaml"))
    known = list(dict.fromkeys(m for row in full["grid"] for m in row["methods"]))
    rows = [{"base": BASE, "task": t, "methods": known[:n]} for t, n in METHODS.items()]
    return {**full, "seeds": SEEDS, "grid": rows, "tables": TABLES}


def _suite_rows(run: RunConfig, name: str, step: int, evaluation: EvaluationConfig, rng) -> pd.DataFrame:
    """Single-image scores of one suite and step."""
    suite, k, parts = evaluation.suites[name], evaluation.images_per_prompt, []
    counts = [count_objects(p) for p in read_prompts(Path(suite.prompts))]
    bounds = {
        **dict.fromkeys([*suite.metrics, *evaluation.encoders()], suite.counts),
        **suite.accuracy_by_count,
    }
    for metric, limit in bounds.items():
        kept = [i for i, n in enumerate(counts) if limit is None or limit[0] <= n <= limit[1]]
        size = 1 if metric in evaluation.encoders() else k
        images = np.tile(np.arange(size) if size > 1 else [-1], len(kept))
        values = rng.random(len(images)) + 0.1 * (run.seed % 5)
        cell = {"run": run.run, "step": step, "suite": name, "metric": metric}
        parts.append(
            pd.DataFrame({**cell, "prompt": np.repeat(kept, size), "image": images, "value": values})
        )
    return pd.concat(parts)


def _write_run(run: RunConfig, evaluation: EvaluationConfig, results: Path, rng) -> tuple[list, pd.DataFrame]:
    """Files of one run; returns its rows of both score tables."""
    folder, task = results / "runs" / run.run, load_task(run.task)
    role_of = roles(task, evaluation)
    last = run.training.iterations
    jobs = [(s, task.suites[0]) for s in run.snapshots] + [(last, suite) for suite in task.suites]
    single = pd.concat([_suite_rows(run, suite, step, evaluation, rng) for step, suite in jobs])
    key = {name: getattr(run, name) for name in ("run", "base", "task", "method", "seed")}
    rows = [
        {**key, "step": step, "suite": suite, "own": suite == task.suites[0], "metric": metric}
        | {"role": role_of.get(metric, "unseen"), "value": value, "n_images": 192}
        for (step, suite, metric), value in single.groupby(["step", "suite", "metric"])["value"]
        .mean()
        .items()
    ]
    measured = {
        (s, "model", m): rng.random() * s for s in [*run.snapshots, last] for m in (KL, DIFFUSION_LOSS)
    }
    measured |= {(last, "training", m): 1.0 + rng.random() for m in COSTS}
    for (step, suite, metric), value in measured.items():
        cell = {"step": step, "suite": suite, "own": False, "metric": metric, "role": "cost"}
        rows.append({**key, **cell, "value": value, "n_images": 0})
    steps = range(1, last + 1)
    history = pd.DataFrame(
        [(s, n, rng.random()) for s in steps for n in LOGGED], columns=["step", "name", "value"]
    )
    history.to_parquet(folder / "history.parquet", index=False)
    machine = {"processor": "none", "threads": 1, "accelerator": "none"}
    provenance = {"git": {"commit": "0" * 40, "dirty": False}, "hardware": machine, "config_hash": run.hash}
    provenance |= {"packages": {"python": "3.11"}, "weights_sha256": run.weights, "device_seconds": 1.0}
    provenance |= {name: 1.0 for name in COSTS.values()}
    (folder / "provenance.json").write_text(json.dumps(provenance))
    if run.seed == min(SEEDS):  # the pictures are of the first seed
        (folder / "images").mkdir(exist_ok=True)
        for step, suite in jobs:
            k = evaluation.images_per_prompt
            n = len(read_prompts(Path(evaluation.suites[suite].prompts))) * k
            pixels = rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
            path = stored_images.path_of(folder / "images", suite, step)
            stored_images.write(path, pixels, k=k, suite=suite, step=step, made_from="random numbers")
    return rows, single


def write_results(config: dict, results: Path) -> Path:
    """Everything that rendering reads of the runs of a config; returns the path of its settings."""
    rng, evaluation, runs = np.random.default_rng(0), load_evaluation(), resolve_grid(config)
    for name, run in runs.items():
        write_text(results / "runs" / name / "run.yaml", to_yaml(run.content()))
    written = [_write_run(run, evaluation, results, rng) for run in runs.values()]
    pd.DataFrame([row for rows, _ in written for row in rows]).to_parquet(results / "scores.parquet")
    pd.concat([single for _, single in written]).to_parquet(results / "image_scores.parquet")
    settings, tables = results / "rendering.yaml", filled_tables(grid_rows(config), evaluation)
    settings.write_text(to_yaml(rendering_settings(config, evaluation, tables).model_dump()))
    return settings


def measure(results: Path, settings: Path) -> dict[str, tuple[float, float]]:
    """Wall and CPU seconds of each rendering; reading the stored files counts towards ``read``."""
    from reporting.draw import render_figures
    from reporting.pages import render_pages
    from reporting.report import check_instrument, judge_claims, render_tables
    from reporting.results import read

    stored, seconds, judged = [], {}, results / "instrument.json"
    jobs = {
        "read": lambda: stored.append(
            read(results / "scores.parquet", settings, results / "image_scores.parquet")
        ),
        "instrument": lambda: check_instrument(
            stored[0], Path("config/instrument.yaml"), judged.with_suffix(".md")
        ),
        "tables": lambda: render_tables(stored[0], results / "tables", judged),
        "figures": lambda: render_figures(stored[0], results / "figures"),
        "claims": lambda: judge_claims(stored[0], Path("config/claims.yaml"), results / "claims.md", judged),
        "pages": lambda: render_pages(stored[0], results / "pages"),
    }
    for name, job in jobs.items():
        wall, usage = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
        job()
        now = resource.getrusage(resource.RUSAGE_SELF)
        cpu = now.ru_utime + now.ru_stime - usage.ru_utime - usage.ru_stime
        seconds[name] = (time.perf_counter() - wall, cpu)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, help="write the synthetic results here and leave them")
    arguments = parser.parse_args()
    set_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        results = arguments.keep or Path(temporary)
        settings = write_results(grid(), results)
        seconds = measure(results, settings)
        print(f"{len(list((results / 'runs').iterdir()))} runs, seconds on one thread: wall, CPU")
        for name, (wall, cpu) in {**seconds, "all": map(sum, zip(*seconds.values(), strict=True))}.items():
            print(f"{name:10} {wall:6.1f} {cpu:6.1f}")


if __name__ == "__main__":
    main()
