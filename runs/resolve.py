"""From the grid to runs: every combination checked and written out, before any job starts."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import methods
import processes
import prompt_sets
from core.settings import ConfigError, parse
from runs.config_files import load_base_model, load_method, load_task, weights_of
from runs.configuration import RunConfig, TaskTraining, TrainingConfig, in_steps


@dataclass(frozen=True)
class GridRow:
    """Runs of several methods on one base model and task.

    ``training`` and ``parameters`` go over those of the main config, for this row alone.
    """

    base: str
    task: str
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    training: dict = field(default_factory=dict)
    parameters: dict = field(default_factory=dict)

    def over(self, config: dict) -> dict:
        """The main config with the row's own settings laid on it."""
        return config | {
            key: {**config.get(key, {}), **getattr(self, key)} for key in ("training", "parameters")
        }


def grid_rows(config: dict) -> list[GridRow]:
    """The rows of ``config['grid']``; a row without seeds takes ``config['seeds']``."""
    return [
        GridRow(
            row["base"],
            row["task"],
            tuple(row["methods"]),
            tuple(row.get("seeds", config["seeds"])),
            row.get("training", {}),
            row.get("parameters", {}),
        )
        for row in config["grid"]
    ]


def _check_needs(needs: methods.Needs, training: TrainingConfig, algorithm: str, where: str) -> None:
    """Raise ``ConfigError`` where a method's needs cannot be served."""
    try:
        processes.get(needs.process).check(needs)
    except ValueError as error:
        raise ConfigError(f"methods/{algorithm}.py: {error}") from None
    if needs.data != (training.data != "none"):
        raise ConfigError(f"{where}: key 'data' is {training.data!r}, which {algorithm} cannot use")
    prompts = {
        "none": 0,
        "prompt": 1,
        "level": math.ceil(training.prompts_per_iteration / training.gradient_steps),
    }
    compared = prompts[needs.together] * training.group_size
    if compared > training.micro_batch:
        raise ConfigError(
            f"{where}: key 'micro_batch' is {training.micro_batch}; {algorithm} compares {compared} images, "
            f"which must fit in one"
        )


def _start(base: str, task: str, method: str, seed: int, config: dict, followed: tuple[str, ...]):
    """The run that ``method`` starts from, or None. Raises ``ConfigError`` for a circle."""
    first = load_method(method).start_from
    if first is None:
        return None
    if first in (*followed, method):
        raise ConfigError(f"config/methods/{method}.yaml: key 'start_from' leads in a circle")
    return resolve_run(base, task, first, seed, config, followed=(*followed, method))


def resolve_run(
    base: str,
    task: str,
    method: str,
    seed: int,
    config: dict,
    row: GridRow | None = None,
    followed: tuple[str, ...] = (),
) -> RunConfig:
    """One run with all defaults filled in. Raises ``ConfigError``.

    Training settings are layered: the task's, then the method's, then the ``training`` section of the
    main config (which presets such as ``config/smoke.yaml`` use to shorten every run). Its ``parameters``
    section goes over the parameters of every method that has them. Those of the grid's ``row`` go over both;
    the run that this one starts from has none. ``followed``: the methods whose ``start_from`` led here.
    """
    start = _start(base, task, method, seed, config, followed)
    config = row.over(config) if row else config
    task_config, method_file = load_task(task), load_method(method)
    base_config = load_base_model(base, task)
    layers = {**task_config.training, **method_file.training, **config.get("training", {})}
    if method_file.training.get("iterations") == 0:
        layers["iterations"] = 0  # the untrained base model stays untrained in every preset
    where = f"training settings of {task}/{method} (config/tasks, config/methods and the main config)"
    training = parse(TrainingConfig, layers, where)
    if training.sde_first + training.sde_steps >= base_config.rollout_steps:
        # The last step's noise is almost nil: its log-probability is all gradient and no exploration.
        raise ConfigError(
            f"{where}: keys 'sde_first' + 'sde_steps' are {training.sde_first + training.sde_steps}; "
            f"{base} takes {base_config.rollout_steps} denoising steps, of which the last stays deterministic"
        )
    trainable = len(range(0, training.sde_steps, training.trained_stride or 1))
    if training.trained_steps > trainable:
        stride = f" with a 'trained_stride' of {training.trained_stride}" if training.trained_stride else ""
        raise ConfigError(
            f"{where}: key 'trained_steps' is {training.trained_steps}, "
            f"but 'sde_steps' is {training.sde_steps}{stride}"
        )
    if training.forward_steps and training.forward_steps > base_config.rollout_steps:
        raise ConfigError(
            f"{where}: key 'forward_steps' is {training.forward_steps}, "
            f"but {base} takes {base_config.rollout_steps} denoising steps"
        )
    if not prompt_sets.is_pending(task_config.prompts) and not Path(task_config.prompts).exists():
        raise ConfigError(f"config/tasks/{task}.yaml: prompts: {task_config.prompts} does not exist")
    known = prompt_sets.size(task_config.prompts)
    if training.iterations and known is not None and training.prompts_per_iteration > known:
        raise ConfigError(
            f"{where}: key 'prompts_per_iteration' is {training.prompts_per_iteration}; "
            f"{task_config.prompts} holds {known} prompts"
        )
    if training.optimised_reward == "gold" and task_config.gold is None:
        raise ConfigError(
            f"{where}: key 'optimised_reward' is 'gold', but config/tasks/{task}.yaml names no 'gold' reward"
        )
    algorithm = methods.get(method_file.algorithm)
    over = {k: v for k, v in config.get("parameters", {}).items() if k in algorithm.Config.model_fields}
    where_parameters = f"parameters of {method} (config/methods/{method}.yaml and the main config)"
    steps = training.iterations * training.gradient_steps
    given = {
        key: in_steps(value, steps, f"{where_parameters}: key {key!r}")
        for key, value in {**method_file.parameters, **over}.items()
    }
    parameters = parse(algorithm.Config, given, where_parameters)
    _check_needs(parameters.needs(), training, method_file.algorithm, where)
    if training.data == "real" and task_config.real_data is None:
        raise ConfigError(f"{where}: key 'data' is 'real', but config/tasks/{task}.yaml has no 'real_data'")
    shares = config.get("snapshot_shares", [])
    snapshots = sorted({round(training.iterations * share) for share in shares} - {0, training.iterations})
    content = {
        "run": f"{base}__{task}__{method}__s{seed}",
        "base": base,
        "task": task,
        "method": method,
        "seed": seed,
        "base_model": base_config.model_dump(),
        "task_settings": task_config.model_dump(include=set(TaskTraining.model_fields)),
        "algorithm": method_file.algorithm,
        "parameters": parameters.model_dump(),
        "training": training.model_dump(),
        "start": start and {"run": start.run, "hash": start.hash},
        "snapshots": snapshots,
        "weights": weights_of(base_config, task_config),
    }
    if method_file.best_of:
        content["best_of"] = method_file.best_of
    if method_file.adapter_scale:
        content["start"]["scale"] = method_file.adapter_scale
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return parse(RunConfig, {**content, "hash": digest}, content["run"])


def resolve_grid(config: dict) -> dict[str, RunConfig]:
    """Every run of the grid by its id. Raises ``ConfigError`` for the first thing that is wrong."""
    runs: dict[str, RunConfig] = {}
    known = {key for name in methods.names() for key in methods.get(name).Config.model_fields}
    _check_parameters("parameters", config.get("parameters", {}), known)
    for number, row in enumerate(grid_rows(config), start=1):
        own = {k for m in row.methods for k in methods.get(load_method(m).algorithm).Config.model_fields}
        _check_parameters(f"grid row {number}: parameters", row.parameters, own)
        for method in row.methods:
            for seed in row.seeds:
                run = resolve_run(row.base, row.task, method, seed, config, row)
                if run.run in runs and runs[run.run] == run:
                    raise ConfigError(f"grid row {number}: {run.run} stands in an earlier row as well")
                if runs.setdefault(run.run, run) != run:
                    raise ConfigError(
                        f"grid row {number}: {run.run} stands in an earlier row with other settings; "
                        "a method of its own in config/methods/ can have them"
                    )
    return runs


def _check_parameters(where: str, given: dict, known: set[str]) -> None:
    for key in given:
        if key not in known:
            raise ConfigError(f"key '{where}.{key}': no method has it; valid: {', '.join(sorted(known))}")


def starting_runs(runs: dict[str, RunConfig], config: dict) -> dict[str, RunConfig]:
    """Runs outside the grid whose adapters runs of the grid start from, directly or not."""
    found: dict[str, RunConfig] = {}
    todo = list(runs.values())
    while todo:
        run = todo.pop()
        if run.start and run.start.run not in {*runs, *found}:
            first = resolve_run(run.base, run.task, load_method(run.method).start_from, run.seed, config)
            found[first.run] = first
            todo.append(first)
    return found
