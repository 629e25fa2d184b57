"""What the rules ask: the runs of the grid, the files they need, the settings each step reads."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

import base_models
from base_models.base import ADAPTER_FILE
from evaluation.configuration import EvaluationConfig, load_evaluation, sampling_settings, scoring_settings
from rewards.weights import verify
from training.configuration import ConfigError, RunConfig
from training.files import sha256, to_yaml, write_if_changed
from training.resolve import (
    RESOURCES,
    grid_rows,
    load_method,
    load_task,
    resolve_grid,
    starting_runs,
    write_runs,
)

RESULTS = Path("results")
CHANNELS = 3


@dataclass(frozen=True)
class Plan:
    """The resolved grid. ``starting`` runs are trained, not evaluated: runs of the grid start from them."""

    runs: dict[str, RunConfig]
    starting: dict[str, RunConfig]
    data_per_prompt: int

    @property
    def trained(self) -> dict[str, RunConfig]:
        return {**self.starting, **self.runs}

    def start_file(self, run: str) -> list[str]:
        """Path of the adapter the run starts from, or an empty list."""
        start = self.trained[run].start
        return [f"{RESULTS}/runs/{start.run}/adapter/{ADAPTER_FILE}"] if start else []

    def data_file(self, run: str) -> list[str]:
        """Path of the run's data latents, or an empty list."""
        config = self.trained[run]
        kind = config.training.data
        if kind == "none":
            return []
        return [f"{RESULTS}/data/{config.base}__{config.task}__{kind}{self.data_per_prompt}.safetensors"]

    def check_base_models(self, *, jobs_run_here: bool) -> None:
        """Raise ``ConfigError`` with all that keeps the grid's base models from being opened.

        Args:
            jobs_run_here: look for a GPU on this machine; False where jobs go to a cluster.
        """
        gpu = not jobs_run_here or torch.cuda.is_available()
        bases = {run.base: run.base_model for run in self.trained.values()}
        lines = [
            f"config/base_models/{name}.yaml: {line}"
            for name, base in bases.items()
            for line in base_models.get_class(base.adapter).missing(base, gpu=gpu)
        ]
        if lines:
            raise ConfigError("\n".join(lines))

    def data_identity(self, base: str, task: str) -> str:
        """Changes when the prompts or the base model's weights change."""
        config = next(r for r in self.trained.values() if (r.base, r.task) == (base, task))
        weights = [v for k, v in config.weights.items() if k.startswith(Path(config.base_model.path).name)]
        return ",".join([sha256(Path(config.task_settings.prompts)), *weights])


def make_plan(config: dict) -> Plan:
    """Resolve, check and write the settings of every step. Raises ``ValueError`` with one clear message."""
    runs = resolve_grid(config)
    starting = starting_runs(runs, config)
    evaluation = load_evaluation(config.get("evaluation"))
    tasks = {row.task: load_task(row.task) for row in grid_rows(config)}
    for name, task in tasks.items():
        for suite in task.suites:
            if suite not in evaluation.suites:
                raise ConfigError(
                    f"config/tasks/{name}.yaml: key 'suites' names {suite!r}; "
                    f"valid: {', '.join(evaluation.suites)}"
                )
    verify(RESOURCES, sorted({name for run in runs.values() for name in run.weights}))
    check_disk(runs, evaluation, {name: task.suites for name, task in tasks.items()})
    write_runs({**starting, **runs}, RESULTS)
    write_settings("sampling", sampling_settings(evaluation, tasks))
    write_settings("scoring", scoring_settings(evaluation, tasks))
    write_settings("rendering", rendering_settings(config, evaluation))
    return Plan(runs, starting, config.get("data_per_prompt", 2))


def write_settings(name: str, settings: dict) -> None:
    """``results/config/<name>.yaml``; an equal file keeps its time stamp and triggers nothing."""
    write_if_changed(RESULTS / "config" / f"{name}.yaml", to_yaml(settings))


def rendering_settings(config: dict, evaluation: EvaluationConfig) -> dict:
    """Labels and order of methods, order of base models, requested tables, proxy metric and own suite of each
    task."""
    rows = grid_rows(config)
    methods = dict.fromkeys(method for row in rows for method in row.methods)
    return {
        "methods": {name: load_method(name).label for name in methods},
        "bases": list(dict.fromkeys(row.base for row in rows)),
        "proxies": {row.task: load_task(row.task).proxy_metric for row in rows},
        "suites": {
            task: {"name": own, "prompts": evaluation.suites[own].prompts}
            for task, own in ((row.task, load_task(row.task).suites[0]) for row in rows)
        },
        "tables": config["tables"],
    }


def needed_bytes(
    runs: dict[str, RunConfig], evaluation: EvaluationConfig, suites: dict[str, list[str]]
) -> int:
    """Upper estimate of what the grid writes: evaluation images, adapters with checkpoints, logs."""
    total = 0
    for run in runs.values():
        lines = [len(Path(evaluation.suites[s].prompts).read_text().splitlines()) for s in suites[run.task]]
        images = (sum(lines) + len(run.snapshots) * lines[0]) * evaluation.images_per_prompt
        pixels = run.base_model.image_size**2 * CHANNELS
        adapters = (
            (4 + len(run.snapshots))
            * 4
            * 4096
            * run.base_model.lora.rank
            * len(run.base_model.lora.target_modules)
        )
        total += images * pixels + adapters
    return total


def check_disk(
    runs: dict[str, RunConfig], evaluation: EvaluationConfig, suites: dict[str, list[str]]
) -> None:
    """Raise ``ConfigError`` where the results would not fit on the disk."""
    RESULTS.mkdir(exist_ok=True)
    needed, free = needed_bytes(runs, evaluation, suites), shutil.disk_usage(RESULTS).free
    if needed > free:
        raise ConfigError(
            f"{RESULTS}/ needs about {needed / 1e9:.1f} GB for {len(runs)} runs, {free / 1e9:.1f} GB are free"
        )
