"""What must be at hand before the first job: weights, a GPU, real images, room on the disk.

A dry run needs none of it. A real run asks for what its own jobs need, and stops with all that is missing.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch

import base_models
import prompt_sets
import rewards
from core.settings import ConfigError
from rewards.features import get_features_class
from rewards.published import hub
from rewards.weights import read_checksums, verify
from runs.config_files import RESOURCES
from runs.configuration import RunConfig
from training.image_folder import ImageFolder
from workflow.plan import RESULTS, Plan
from workflow.rendering import empty_tables

CHANNELS = 3


@dataclass
class Jobs:
    """Jobs that are still to be done, as far as they need something: names of runs and prompt sets."""

    train: set[str] = field(default_factory=set)
    evaluate: set[str] = field(default_factory=set)
    data: set[tuple[str, str, str]] = field(default_factory=set)  # base, task, kind
    prompts: set[str] = field(default_factory=set)
    tables: bool = False

    @property
    def with_models(self) -> bool:
        """Whether one of them opens a model."""
        return bool(self.train or self.evaluate or self.data)

    @classmethod
    def of(cls, jobs: Iterable[tuple[str, dict]]) -> Jobs:
        """From (rule, wildcards) of each job."""
        found = cls()
        for rule, wildcards in jobs:
            if rule in ("train", "evaluate"):
                getattr(found, rule).add(wildcards["run"])
            elif rule == "data":
                found.data.add((wildcards["base"], wildcards["task"], wildcards["kind"]))
            elif rule == "prompts":
                found.prompts.add(wildcards["set"])
            elif rule == "tables":
                found.tables = True
        return found


def check_ready(plan: Plan, jobs: Jobs, *, jobs_run_here: bool) -> None:
    """Raise ``ConfigError`` with one line for each thing that is missing."""
    gaps = [
        *(empty_tables(plan.tables, plan.rows) if jobs.tables else []),
        *missing_base_models(plan, jobs, jobs_run_here=jobs_run_here),
        *missing_weights(plan, jobs),
        *missing_images(plan, jobs),
        *missing_room(plan, jobs),
    ]
    if gaps:
        raise ConfigError("\n".join(["not everything is at hand; no job was started:", *gaps]))


def opened(plan: Plan, jobs: Jobs) -> dict[str, RunConfig]:
    """One run of each base model that a job opens, by the base model's name."""
    runs = [plan.trained[name] for name in sorted(jobs.train | jobs.evaluate)]
    runs += [plan.run_on(base, task) for base, task, _ in sorted(jobs.data)]
    return {run.base: run for run in runs}


def missing_base_models(plan: Plan, jobs: Jobs, *, jobs_run_here: bool) -> list[str]:
    """What keeps base models from being opened; a GPU is looked for only where jobs run on this machine."""
    gpu = torch.cuda.is_available() if jobs_run_here else True
    return [
        f"config/base_models/{name}.yaml: {line}"
        for name, run in opened(plan, jobs).items()
        for line in base_models.get_class(run.base_model.pipeline).missing(run.base_model, gpu=gpu)
    ]


def plugins(plan: Plan, jobs: Jobs) -> list[type]:
    """Classes of the rewards and encoders that jobs load."""
    metrics, encoders = set(), set()
    for name in jobs.train:
        run = plan.trained[name]
        if run.training.iterations:
            task = run.task_settings
            metrics |= set(task.rewards())
            encoders.add(task.features)
    for name in jobs.evaluate:
        for suite in plan.tasks[plan.runs[name].task].suites:
            metrics |= set(plan.evaluation.suites[suite].scored())
        encoders.update(plan.evaluation.encoders().values())
    return [rewards.get_class(n) for n in sorted(metrics)] + [get_features_class(n) for n in sorted(encoders)]


def missing_weights(plan: Plan, jobs: Jobs) -> list[str]:
    """Weights from a hub that are not here, and shipped ones that are not as they were shipped."""
    needed = plugins(plan, jobs)
    prefixes = [prefix for plugin in needed for prefix in plugin.weights]
    prefixes += [f"{Path(run.base_model.path).name}/" for run in opened(plan, jobs).values()]
    gaps = []
    for check in (
        lambda: hub.check(needed),
        lambda: verify(RESOURCES, [n for n in read_checksums(RESOURCES) if n.startswith(tuple(prefixes))]),
    ):
        try:
            check()
        except ValueError as error:
            gaps.append(str(error))
    return gaps


def missing_images(plan: Plan, jobs: Jobs) -> list[str]:
    folders = {plan.tasks[task].real_data for _, task, kind in jobs.data if kind == "real"} - {"scenes"}
    gaps = []
    for folder in sorted(folders):
        try:
            ImageFolder(Path(folder))
        except ValueError as error:
            gaps.append(str(error))
    return gaps


def images_of(plan: Plan, run: RunConfig) -> int:
    """Evaluation images of one run; sets of unknown size count as nothing."""
    sizes = [prompt_sets.size(plan.evaluation.suites[s].prompts) or 0 for s in plan.tasks[run.task].suites]
    return (sum(sizes) + len(run.snapshots) * sizes[0]) * plan.evaluation.images_per_prompt


def needed_bytes(plan: Plan, jobs: Jobs) -> int:
    """Upper estimate of what jobs write: evaluation images (as if nothing compressed them), adapters with
    checkpoints, data latents."""
    total = 0
    for base, task, _ in jobs.data:  # a latent takes no more room than its image
        prompts = prompt_sets.size(plan.tasks[task].prompts) or 0
        total += prompts * plan.data_per_prompt * plan.run_on(base, task).base_model.pixels * CHANNELS
    images = [
        images_of(plan, run) * run.base_model.pixels * CHANNELS
        for run in (plan.runs[name] for name in jobs.evaluate)
    ]
    total += sum(images) if plan.evaluation.keep_images else max(images, default=0)
    for run in (plan.trained[name] for name in jobs.train):
        lora = run.base_model.lora
        total += (4 + len(run.snapshots)) * 4 * 4096 * lora.rank * len(lora.target_modules)
    return total


def missing_room(plan: Plan, jobs: Jobs) -> list[str]:
    RESULTS.mkdir(exist_ok=True)
    needed, free = needed_bytes(plan, jobs), shutil.disk_usage(RESULTS).free
    if needed <= free:
        return []
    return [f"{RESULTS}/ needs about {needed / 1e9:.1f} GB more, {free / 1e9:.1f} GB are free"]
