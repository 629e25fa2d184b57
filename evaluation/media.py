"""What cannot be judged is an error before any job: rewards of another medium or size of image."""

from __future__ import annotations

import base_models
import rewards
from core.settings import ConfigError
from evaluation.configuration import EvaluationConfig
from runs.config_files import load_base_model
from runs.configuration import RunConfig, TaskConfig


def check_media(
    runs: dict[str, RunConfig], tasks: dict[str, TaskConfig], evaluation: EvaluationConfig
) -> None:
    """Raise ``ConfigError`` for a reward or metric that cannot judge what a base model of its task makes."""
    for base, task in dict.fromkeys((run.base, run.task) for run in runs.values()):
        model = load_base_model(base, task)
        medium = base_models.get_class(model.pipeline).medium
        asked = dict.fromkeys(tasks[task].rewards(), f"config/tasks/{task}.yaml")
        for suite in tasks[task].suites:
            where = f"config/evaluation.yaml: suites.{suite}"
            asked = dict.fromkeys(evaluation.suites[suite].scored(), where) | asked
        for name, where in asked.items():
            reward = rewards.get_class(name)
            if not reward.can_judge(medium):
                raise ConfigError(f"{where}: {name!r} judges {reward.medium}s; {base} makes {medium}s")
            if reward.image_size not in (None, model.image_size):
                raise ConfigError(
                    f"{where}: {name!r} judges images of {reward.image_size} pixels a side; {base} makes "
                    f"{model.image_size}: its tasks are others, such as those of config/paper.yaml"
                )
