"""What cannot be judged or made is an error before any job: rewards of another medium or size of image, first
frames that a base model cannot be given or that are not there, clips that nobody can draw."""

from __future__ import annotations

from pathlib import Path

import base_models
import prompt_sets
import rewards
from base_models.base import BaseModel
from base_models.configuration import BaseModelConfig
from core.prompts import FIRST_FRAME
from core.prompts import read as read_prompts
from core.settings import ConfigError
from evaluation.configuration import EvaluationConfig
from runs.config_files import load_base_model
from runs.configuration import RunConfig, TaskConfig
from training.data import check_drawn
from training.first_frames import check_first_frames, has_first_frames


def check_media(
    runs: dict[str, RunConfig], tasks: dict[str, TaskConfig], evaluation: EvaluationConfig
) -> None:
    """Raise ``ConfigError`` for what a base model cannot make, or a reward of its task cannot judge."""
    for base, name in dict.fromkeys((run.base, run.task) for run in runs.values()):
        config, task = load_base_model(base, name), tasks[name]
        model = base_models.get_class(config.pipeline)
        _check_rewards(base, config, model, name, task, evaluation)
        trains = [run.training for run in runs.values() if (run.base, run.task) == (base, name)]
        files = (
            {f"config/tasks/{name}.yaml: prompts": task.prompts} if any(t.iterations for t in trains) else {}
        )
        for suite in task.suites:
            files[f"config/evaluation.yaml: suites.{suite}.prompts"] = evaluation.suites[suite].prompts
        for where, file in files.items():
            _check_first_frames(where, Path(file), base, model)
        if model.medium == "clip":
            scenes = task.real_data == "scenes" and any(training.data == "real" for training in trains)
            drawn = {f"config/tasks/{name}.yaml: real_data": task.prompts} if scenes else {}
            if evaluation.held_out_scenes:
                own = evaluation.suites[task.suites[0]].prompts
                drawn["config/evaluation.yaml: held_out_scenes"] = own
            for where, file in drawn.items():
                _check_drawn(where, file, config)


def _check_rewards(
    base: str,
    config: BaseModelConfig,
    model: type[BaseModel],
    name: str,
    task: TaskConfig,
    evaluation: EvaluationConfig,
) -> None:
    asked = dict.fromkeys(task.rewards(), f"config/tasks/{name}.yaml")
    for suite in task.suites:
        asked = (
            dict.fromkeys(evaluation.suites[suite].scored(), f"config/evaluation.yaml: suites.{suite}")
            | asked
        )
    for metric, where in asked.items():
        reward = rewards.get_class(metric)
        if not reward.can_judge(model.medium):
            raise ConfigError(f"{where}: {metric!r} judges {reward.medium}s; {base} makes {model.medium}s")
        if reward.image_size not in (None, config.image_size):
            raise ConfigError(
                f"{where}: {metric!r} judges images of {reward.image_size} pixels a side; {base} makes "
                f"{config.image_size}: its tasks are others, such as those of config/paper.yaml"
            )


def _check_first_frames(where: str, file: Path, base: str, model: type[BaseModel]) -> None:
    if prompt_sets.is_pending(str(file)) or not file.exists():
        return  # its own job makes it, or another check says so
    if FIRST_FRAME.encode() not in file.read_bytes():
        return  # and the plan is spared the time to read 50,000 prompts
    prompts = read_prompts(file)
    if not has_first_frames(prompts):
        return
    if not model.takes_first_frames:
        raise ConfigError(
            f"{where}: {file} gives first frames of clips, and {base} cannot be given them (pipeline "
            f"{model.name!r}); valid: prompts without 'first_frame', or another base model"
        )
    check_first_frames(file, prompts)


def _check_drawn(where: str, file: str, config: BaseModelConfig) -> None:
    if prompt_sets.is_pending(file):
        raise ConfigError(f"{where} asks for clips drawn of {file}, which are not the embedded world's")
    try:
        check_drawn(read_prompts(Path(file)), config)
    except ConfigError as error:
        raise ConfigError(f"{where}: {file}: {error}") from None
