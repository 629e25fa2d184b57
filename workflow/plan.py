"""What the rules ask: the runs of the grid, the files they need, the settings each step reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import prompt_sets
from base_models.base import ADAPTER_FILE
from core.files import sha256, to_yaml, write_if_changed
from core.settings import ConfigError
from evaluation.configuration import (
    EvaluationConfig,
    expected_base,
    load_evaluation,
    run_evaluation,
)
from evaluation.media import check_media
from reporting import stored
from reporting.base_check import Recorded
from reporting.results import OwnSuite, RenderingSettings
from rewards.weights import verify
from runs.config_files import RESOURCES, load_base_model, load_method, load_task
from runs.configuration import RunConfig, TaskConfig, load_run
from runs.resolve import GridRow, grid_rows, resolve_grid, starting_runs
from training.image_folder import METADATA
from workflow.rendering import check_claims, check_figures, check_instrument, check_tables, filled_tables

RESULTS = Path("results")


@dataclass(frozen=True)
class Plan:
    """The resolved grid. ``starting`` runs are trained, not evaluated: runs of the grid start from them.

    ``files``: what stands in ``results/config/<name>.yaml``, by name.
    ``checked`` runs were scored apart and stand in tables as rows of the grid do.
    ``stored`` runs are taken from the folder ``store`` instead of being trained.
    """

    runs: dict[str, RunConfig]
    starting: dict[str, RunConfig]
    data_per_prompt: int
    evaluation: EvaluationConfig
    tasks: dict[str, TaskConfig]
    rows: list[GridRow]
    tables: list[str]
    files: dict[str, str] = field(default_factory=dict)
    store: Path | None = None
    stored: tuple[str, ...] = ()
    checked: tuple[str, ...] = ()

    def digest(self, name: str) -> str:
        """Changes when the settings ``results/config/<name>.yaml`` do."""
        return hashlib.sha256(self.files[name].encode()).hexdigest()

    def write(self, trained_again: Container[str]) -> None:
        """Write ``run.yaml`` of every run and the settings under ``results/config``, before the first job.

        Nothing is written when a grid is resolved: a dry run, a plan or a second snakemake that finds the
        folder locked changes nothing that a running grid reads.

        Args:
            trained_again: runs that jobs will train. The settings of another finished run are its own.

        Raises:
            ConfigError: a finished run has other settings than the grid, and no job replaces it.
        """
        for name, run in self.trained.items():
            folder = RESULTS / "runs" / name
            provenance = folder / "provenance.json"
            if name not in trained_again and provenance.exists() and (folder / "adapter").exists():
                if json.loads(provenance.read_text())["config_hash"] != run.hash:
                    raise ConfigError(
                        f"{folder} was trained with other settings than the grid has now; "
                        f"train it again (--forcerun train), or move it away"
                    )
        for name, run in self.trained.items():
            write_if_changed(RESULTS / "runs" / name / "run.yaml", to_yaml(run.content()))
        for name, text in self.files.items():
            write_if_changed(RESULTS / "config" / f"{name}.yaml", text)

    @cached_property
    def verified(self) -> bool:
        """True, or raises ``WeightsError``: every shipped file that a run reads is as it was shipped.

        What makes the shipped files again does not ask.
        """
        verify(RESOURCES, sorted({name for run in self.trained.values() for name in run.weights}))
        return True

    @property
    def made(self) -> list[str]:
        """Runs that are trained and evaluated here."""
        return [name for name in self.trained if name not in self.stored]

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

    def run_on(self, base: str, task: str) -> RunConfig:
        """Any run on a base model and task."""
        return next(r for r in self.trained.values() if (r.base, r.task) == (base, task))

    def data_identity(self, base: str, task: str, kind: str) -> str:
        """Changes when the prompts, the base model's weights or the folder of real images change."""
        config, folder = self.run_on(base, task), self.tasks[task].real_data
        parts = [v for k, v in config.weights.items() if k.startswith(Path(config.base_model.path).name)]
        if kind == "real" and folder != "scenes":
            metadata = Path(folder) / METADATA
            parts.append(sha256(metadata) if metadata.exists() else "missing")
        return ",".join([prompt_sets.identity(config.task_settings.prompts), *parts])

    def data_batch(self, base: str, task: str) -> int:
        """Images per forward pass when data are made."""
        return min(64, self.run_on(base, task).training.micro_batch)

    def training_prompts(self, run: str) -> list[str]:
        """The file of a run's training prompts; the untrained base model needs none."""
        config = self.trained[run]
        return [config.task_settings.prompts] if config.training.iterations else []

    def base_runs(self) -> list[str]:
        """As few runs of untrained base models, as they are, as cover all suites of each seed."""
        suites: dict[str, set[tuple]] = {}
        for name, run in self.runs.items():
            same = {"gradient_checkpointing": False}  # which changes no image
            own = load_base_model(run.base).model_copy(update=same)
            if (
                run.training.iterations
                or run.start
                or run.best_of
                or run.base_model.model_copy(update=same) != own
            ):
                continue  # trained, or the task changes how the base model samples
            suites[name] = {(run.base, run.seed, suite) for suite in self.tasks[run.task].suites}
        chosen, missing = [], set().union(*suites.values())
        while missing:
            best = max(suites, key=lambda name: len(suites[name] & missing))  # the first of equal ones
            chosen.append(best)
            missing -= suites[best]
        return chosen

    def test_prompts(self, run: str) -> list[str]:
        """The files of a run's test prompts."""
        suites = self.tasks[self.runs[run].task].suites
        return list(dict.fromkeys(self.evaluation.suites[name].prompts for name in suites))


def make_plan(config: dict) -> Plan:
    """Resolve and check the settings of every step. Raises ``ValueError`` with one clear message."""
    runs = resolve_grid(config)
    starting = starting_runs(runs, config)
    evaluation, rows = load_evaluation(config.get("evaluation")), grid_rows(config)
    tasks = {row.task: load_task(row.task) for row in rows}
    for name, task in tasks.items():
        for suite in task.suites:
            if suite not in evaluation.suites:
                raise ConfigError(
                    f"config/tasks/{name}.yaml: key 'suites' names {suite!r}; "
                    f"valid (suites of config/evaluation.yaml): {', '.join(evaluation.suites)}"
                )
    check_media(runs, tasks, evaluation)
    check_instrument()
    check_claims()
    check_figures()
    tables = config.get("tables")
    tables = filled_tables(rows, evaluation) if tables is None else tables
    check_tables(tables)
    checked = checked_runs(config.get("checked", []), runs)
    rendering = rendering_settings(config, evaluation, tables)
    rendering.methods.update({run.method: run.method for run in checked})
    recorded = expected_base(evaluation, rendering.bases)
    settings = {
        # Apart, so that a task more in the grid scores no other's images again.
        **{f"evaluation/{name}": run_evaluation(evaluation, task) for name, task in tasks.items()},
        "rendering": rendering,
        "base_check": Recorded(suites=list(evaluation.suites), scores=recorded),
    }
    store = config.get("stored_runs")
    return Plan(
        runs,
        starting,
        config.get("data_per_prompt", 2),
        evaluation,
        tasks,
        rows,
        tables,
        {name: to_yaml(value.model_dump(mode="json")) for name, value in settings.items()},
        Path(store) if store else None,
        tuple(stored_runs(runs, Path(store))) if store else (),
        tuple(run.run for run in checked),
    )


def checked_runs(names: list[str], runs: dict[str, RunConfig]) -> list[RunConfig]:
    """What ``python -m checking`` has scored, beside the grid's rows of the same base and task."""
    found = []
    for name in names:
        folder = RESULTS / "runs" / name
        scored = sorted(path.parent.name for path in (RESULTS / "checks").glob("*/report.json"))
        if name in runs or name not in scored:
            valid = ", ".join(scored) or "none; python -m checking makes them"
            raise ConfigError(f"key 'checked' names {name!r}; valid: {valid}")
        run = load_run(folder)
        if (run.base, run.task) not in {(other.base, other.task) for other in runs.values()}:
            raise ConfigError(
                f"key 'checked' names {name!r}; the grid has no row of {run.base} on {run.task}"
            )
        found.append(run)
    return found


def stored_runs(runs: dict[str, RunConfig], store: Path) -> list[str]:
    """Runs whose results are in the store with the same settings, and that were not trained here.

    A run that one to be made here starts from is not taken from there: no adapter is stored.
    """
    known = stored.hashes(store)
    taken = {
        name
        for name, run in runs.items()
        if known.get(name) == run.hash and not (RESULTS / "runs" / name / "adapter").exists()
    }
    while needed := taken & {run.start.run for name, run in runs.items() if run.start and name not in taken}:
        taken -= needed
    return [name for name in runs if name in taken]


def rendering_settings(config: dict, evaluation: EvaluationConfig, tables: list[str]) -> RenderingSettings:
    rows = grid_rows(config)
    tasks = {row.task: load_task(row.task) for row in rows}
    methods = dict.fromkeys(method for row in rows for method in row.methods)
    bases = list(dict.fromkeys(row.base for row in rows))
    own = {name: task.suites[0] for name, task in tasks.items()}
    return RenderingSettings(
        methods={name: load_method(name).label for name in methods},
        bases=bases,
        proxies={name: task.proxy_metric for name, task in tasks.items()},
        suites={
            task: OwnSuite(name=name, prompts=evaluation.suites[name].prompts) for task, name in own.items()
        },
        tables=tables,
    )
