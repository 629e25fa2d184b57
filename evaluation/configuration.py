"""What is measured: suites, metrics and the role each metric plays in a task."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

import prompt_sets
import rewards
from core.prompts import count_objects
from core.prompts import read as read_prompts
from core.settings import ConfigError, Name, Settings, parse, read_yaml
from evaluation.scores import BY_KIND
from methods.maths.diversity import DIVERSITY, by_kind
from rewards.features import feature_names, get_features_class
from rewards.published.hub import commits
from runs.configuration import TaskConfig

EVALUATION = Path("config/evaluation.yaml")


def _in_order(bounds: tuple[int, int]) -> tuple[int, int]:
    if not 0 <= bounds[0] <= bounds[1]:
        raise ValueError("valid: two numbers of objects, the smaller first")
    return bounds


Bounds = Annotated[tuple[int, int], AfterValidator(_in_order)]


class SuiteConfig(Settings):
    """A set of test prompts and what is measured on it. Count ranges are inclusive."""

    prompts: str
    metrics: list[str] = Field(min_length=1)
    counts: Bounds | None = None
    accuracy: str = Field("geneval", description="metric of accuracy_by_count")
    accuracy_by_count: dict[Name, Bounds] = {}

    def scored(self) -> list[str]:
        """The rewards that score it."""
        return list(dict.fromkeys([*self.metrics, *[self.accuracy] * bool(self.accuracy_by_count)]))


class _PerRun(Settings):
    """What holds for every run, whatever its task."""

    images_per_prompt: int = Field(ge=1, le=10_000)
    batch: int = Field(ge=1)
    features: str
    features_by_kind: dict[Name, str] = Field(
        {}, description="encoders of one kind of diversity each: diversity_<kind>"
    )
    kl_noise_level: float = Field(gt=0, description="of the SDE on which the KL from the base is measured")
    held_out_scenes: bool = Field(
        description="measure the diffusion loss on drawn scenes of the test prompts"
    )
    keep_images: bool = Field(True, description="false: a run's images are deleted once it is scored")

    def encoders(self) -> dict[str, str]:
        """Metric of diversity -> the encoder in whose features it is measured."""
        return {DIVERSITY: self.features} | {by_kind(k): name for k, name in self.features_by_kind.items()}


class EvaluationConfig(_PerRun):
    gold: list[str] = []
    instruments: list[list[str]] = Field(
        [], description="scores of one instrument: where one is the proxy, the others are not unseen"
    )
    suites: dict[Name, SuiteConfig] = Field(min_length=1)

    def measured(self) -> set[str]:
        """Every metric of images."""
        suites = self.suites.values()
        by_suite = [{*suite.metrics, *suite.accuracy_by_count} for suite in suites]
        return {*self.encoders(), *(metric for metrics in by_suite for metric in metrics)}


class RunEvaluation(_PerRun):
    """What one run's evaluation reads; the first suite is the task's own."""

    suites: dict[str, SuiteConfig]
    roles: dict[str, str] = Field(description="by metric; what is not named is unseen")
    commits: dict[str, str] = Field({}, description="of the hub repositories that the metrics read")

    def role(self, metric: str) -> str:
        """The part a metric plays in the run's task."""
        return self.roles.get(metric, "unseen")

    @property
    def own(self) -> str:
        """The task's own suite, the only one on which snapshots are evaluated."""
        return next(iter(self.suites))


def load_evaluation(overrides: dict | None = None, path: Path = EVALUATION) -> EvaluationConfig:
    """Read and check. Raises ``ConfigError`` naming file, key and valid values."""
    config = parse(EvaluationConfig, {**read_yaml(path), **(overrides or {})}, str(path))
    by_kind_key = {f"features_by_kind.{kind}": name for kind, name in config.features_by_kind.items()}
    for key, name in {"features": config.features, **by_kind_key}.items():
        if name not in feature_names():
            raise ConfigError(f"{path}: {key} names {name!r}; valid: {', '.join(feature_names())}")
    for name, suite in config.suites.items():
        for metric in suite.scored():
            if metric not in rewards.names():
                valid = ", ".join(rewards.names())
                raise ConfigError(f"{path}: suites.{name}.metrics names {metric!r}; valid: {valid}")
        if prompt_sets.is_pending(suite.prompts):
            continue  # its own job makes it and checks it
        if not Path(suite.prompts).exists():
            raise ConfigError(f"{path}: suites.{name}.prompts: {suite.prompts} does not exist")
        try:
            prompts = read_prompts(Path(suite.prompts))
            for metric in suite.scored():
                rewards.get_class(metric).check_prompts(prompts)
        except ValueError as error:
            raise ConfigError(f"{path}: suites.{name}.prompts: {error}") from None
        for key, bounds in {"counts": suite.counts, **suite.accuracy_by_count}.items():
            if bounds and not any(bounds[0] <= count_objects(p) <= bounds[1] for p in prompts):
                raise ConfigError(
                    f"{path}: suites.{name}: {key} is {list(bounds)}; no prompt of {suite.prompts} asks "
                    "for so many objects"
                )
    return config


def run_evaluation(config: EvaluationConfig, task: TaskConfig) -> RunEvaluation:
    """What decides the evaluation of a task's runs, and nothing else."""
    suites = {name: config.suites[name] for name in task.suites}
    own = suites[task.suites[0]]
    metrics = [*own.metrics, *added_metrics(task, config)]
    suites[task.suites[0]] = own.model_copy(update={"metrics": metrics})
    scored = dict.fromkeys(metric for suite in suites.values() for metric in suite.scored())
    plugins = [*map(rewards.get_class, scored), *map(get_features_class, config.encoders().values())]
    shared = {name: getattr(config, name) for name in _PerRun.model_fields}
    return RunEvaluation(**shared, suites=suites, roles=roles(task, config), commits=commits(plugins))


def load_run_evaluation(path: Path) -> RunEvaluation:
    """``results/config/evaluation/<task>.yaml``. Raises ``ConfigError`` naming file and key."""
    return parse(RunEvaluation, read_yaml(path), str(path))


def expected_base(config: EvaluationConfig, bases: list[str]) -> list[dict]:
    """What the rewards themselves expect of untrained base models, each on the first suite that has it."""
    first = {metric: name for name, suite in reversed(config.suites.items()) for metric in suite.metrics}
    classes = {metric: rewards.get_class(metric) for metric in first}
    return [
        {"base": base, "suite": suite, "metric": metric, "value": reward.expected_base[base]}
        | {"source": reward.expected_source}
        for metric, suite in first.items()
        for base in bases
        if base in (reward := classes[metric]).expected_base
    ]


def added_metrics(task: TaskConfig, config: EvaluationConfig) -> list[str]:
    """What the task's own suite is scored by besides its metrics: the proxy, where no suite measures it."""
    suite = config.suites[task.suites[0]]
    known = {*suite.metrics, *suite.accuracy_by_count}
    return [] if task.proxy_metric in known else [task.proxy_metric]


def roles(task: TaskConfig, config: EvaluationConfig) -> dict[str, str]:
    """Role of each metric in a task; what is not named is unseen."""
    seen = dict.fromkeys(config.encoders(), BY_KIND) | {DIVERSITY: DIVERSITY}
    seen |= dict.fromkeys(task.auxiliary, "auxiliary") | dict.fromkeys(config.gold, "gold")
    proxies = {task.proxy, task.proxy_metric, *rewards.get_class(task.proxy).made_of()}
    related = [metric for scores in config.instruments if proxies & set(scores) for metric in scores]
    return seen | dict.fromkeys([*related, *sorted(proxies)], "proxy")
