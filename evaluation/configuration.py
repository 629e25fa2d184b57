"""What is measured: suites, metrics and the role each metric plays in a task."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

import prompt_sets
import rewards
from rewards.features import feature_names, get_features_class
from rewards.published.hub import commits
from scenes.prompts import read as read_prompts
from training.configuration import ConfigError, TaskConfig, parse, read_yaml

EVALUATION = Path("config/evaluation.yaml")


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SuiteConfig(_Settings):
    """A set of test prompts and what is measured on it. Count ranges are inclusive."""

    prompts: str
    metrics: list[str] = Field(min_length=1)
    counts: tuple[int, int] | None = None
    accuracy: str = Field("geneval", description="metric of accuracy_by_count")
    accuracy_by_count: dict[str, tuple[int, int]] = {}

    def scored(self) -> list[str]:
        """The rewards that score it."""
        return list(dict.fromkeys([*self.metrics, *[self.accuracy] * bool(self.accuracy_by_count)]))


class EvaluationConfig(_Settings):
    images_per_prompt: int = Field(ge=1)
    batch: int = Field(ge=1)
    features: str
    gold: list[str] = []
    instruments: list[list[str]] = Field(
        [], description="scores of one instrument: where one is the proxy, the others are not unseen"
    )
    kl_noise_level: float = Field(gt=0, description="of the SDE on which the KL from the base is measured")
    held_out_scenes: bool = Field(
        description="measure the diffusion loss on drawn scenes of the test prompts"
    )
    suites: dict[str, SuiteConfig]


def load_evaluation(overrides: dict | None = None, path: Path = EVALUATION) -> EvaluationConfig:
    """Read and check. Raises ``ConfigError`` naming file, key and valid values."""
    config = parse(EvaluationConfig, {**read_yaml(path), **(overrides or {})}, str(path))
    if config.features not in feature_names():
        valid = ", ".join(feature_names())
        raise ConfigError(f"{path}: features names {config.features!r}; valid: {valid}")
    for name, suite in config.suites.items():
        for metric in suite.scored():
            if metric not in rewards.names():
                valid = ", ".join(rewards.names())
                raise ConfigError(f"{path}: suites.{name}.metrics names {metric!r}; valid: {valid}")
        if prompt_sets.is_pending(suite.prompts):
            continue  # its own job makes it and checks it
        if not Path(suite.prompts).exists():
            raise ConfigError(f"{path}: suites.{name}.prompts: {suite.prompts} does not exist")
        for metric in suite.metrics:
            try:
                rewards.get_class(metric).check_prompts(read_prompts(Path(suite.prompts)))
            except ValueError as error:
                raise ConfigError(f"{path}: suites.{name}.prompts: {error}") from None
    return config


def sampling_settings(config: EvaluationConfig, task: TaskConfig) -> dict:
    """What decides the evaluation images of a task's runs, and nothing else."""
    return {
        "images_per_prompt": config.images_per_prompt,
        "batch": config.batch,
        "kl_noise_level": config.kl_noise_level,
        "held_out_scenes": config.held_out_scenes,
        "suites": task.suites,
        "prompts": {name: config.suites[name].prompts for name in task.suites},
    }


def scoring_settings(config: EvaluationConfig, task: TaskConfig) -> dict:
    """What decides the scores of given images of a task's runs, and nothing else."""
    suites = {name: config.suites[name] for name in task.suites}
    own = task.suites[0]
    suites[own] = suites[own].model_copy(
        update={"metrics": [*suites[own].metrics, *added_metrics(task, config)]}
    )
    metrics = dict.fromkeys(metric for suite in suites.values() for metric in suite.scored())
    plugins = [*map(rewards.get_class, metrics), get_features_class(config.features)]
    return {
        "images_per_prompt": config.images_per_prompt,
        "features": config.features,
        "suites": {name: suite.model_dump(mode="json") for name, suite in suites.items()},
        "roles": roles(task, config),
        **commits(plugins),
    }


def added_metrics(task: TaskConfig, config: EvaluationConfig) -> list[str]:
    """What the task's own suite is scored by besides its metrics: the proxy, where no suite measures it."""
    suite = config.suites[task.suites[0]]
    known = {*suite.metrics, *suite.accuracy_by_count}
    return [] if task.proxy_metric in known else [task.proxy_metric]


def roles(task: TaskConfig, config: EvaluationConfig) -> dict[str, str]:
    """Role of each metric in a task; what is not named is unseen."""
    seen = dict.fromkeys(task.auxiliary, "auxiliary") | dict.fromkeys(config.gold, "gold")
    proxies = {task.proxy, task.proxy_metric, *rewards.get_class(task.proxy).made_of()}
    related = [metric for scores in config.instruments if proxies & set(scores) for metric in scores]
    return seen | dict.fromkeys([*related, *sorted(proxies)], "proxy")
