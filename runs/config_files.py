"""The files of ``config/`` that a grid names: base models, tasks and methods, each read once and checked."""

from __future__ import annotations

import functools
from pathlib import Path

from safetensors import SafetensorError, safe_open

import base_models
import methods
import prompt_sets
import rewards
from base_models.configuration import BaseModelConfig
from core.prompts import read as read_prompts
from core.settings import NAME, ConfigError, merged, parse, read_yaml
from rewards.features import feature_names, get_features_class
from rewards.published.hub import commits
from rewards.weights import read_checksums
from runs.configuration import DIVERSITY, MethodFile, TaskConfig, in_steps

CONFIG = Path("config")
RESOURCES = Path("resources")


def _file(folder: str, name: str, followed: tuple[str, ...] = ()) -> tuple[dict, str]:
    """A file of ``config/<folder>``, laid on the one that its key ``extends`` names, and its path."""
    valid_name = isinstance(name, str) and NAME.fullmatch(name)
    path = CONFIG / folder / f"{name}.yaml"
    if not valid_name or not path.exists():
        valid = sorted(p.stem for p in (CONFIG / folder).glob("*.yaml"))
        kind = folder.rstrip("s").replace("_", " ")
        raise ConfigError(
            f"unknown {kind} {name!r} in the grid; valid (from {CONFIG / folder}/): {', '.join(valid)}"
        )
    value = read_yaml(path)
    if "extends" not in value:
        return value, str(path)
    extended = value.pop("extends")
    if extended in (*followed, name):
        raise ConfigError(f"{path}: key 'extends' leads in a circle")
    known = isinstance(extended, str) and NAME.fullmatch(extended)
    if not known or not (CONFIG / folder / f"{extended}.yaml").exists():
        valid = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml")))
        raise ConfigError(f"{path}: key 'extends' names {extended!r}; valid: {valid}")
    return merged(_file(folder, extended, (*followed, name))[0], value), str(path)


@functools.cache
def load_base_model(name: str, task: str | None = None) -> BaseModelConfig:
    """The base model, with the settings that ``task`` changes. Raises ``ConfigError``."""
    value, where = _file("base_models", name)
    changes = load_task(task).base_model if task is not None else {}
    if changes:
        value, where = value | changes, f"{where} with base_model of {CONFIG}/tasks/{task}.yaml"
    config = parse(BaseModelConfig, value, where)
    if config.pipeline not in base_models.names():
        raise ConfigError(
            f"{where}: key 'pipeline' is {config.pipeline!r}; valid: {', '.join(base_models.names())}"
        )
    missing = _unknown_targets(config)
    if missing:
        raise ConfigError(
            f"{where}: key 'lora.target_modules' names {missing[0]!r}; no layer of {config.path}/transformer "
            "is called so"
        )
    return config


def _unknown_targets(config: BaseModelConfig) -> list[str]:
    """LoRA targets that name no layer of the transformer, where its weights lie in a folder here."""
    files = sorted((Path(config.path) / "transformer").glob("*.safetensors"))
    layers: set[str] = set()
    for file in files:
        try:
            with safe_open(file, "pt") as stream:
                layers |= {key.rpartition(".")[0] for key in stream.keys()}  # noqa: SIM118
        except (SafetensorError, OSError):  # damaged: what opens it says so
            return []
    targets = config.lora.target_modules if files else []
    return [t for t in targets if not any(layer == t or layer.endswith(f".{t}") for layer in layers)]


@functools.cache
def load_task(name: str) -> TaskConfig:
    value, where = _file("tasks", name)
    task = parse(TaskConfig, value, where)
    for key, wanted in (
        ("proxy", [task.proxy]),
        ("auxiliary", task.auxiliary),
        ("gold", [task.gold] if task.gold else []),
        ("monitor", [name for name in task.monitor if name != DIVERSITY]),
    ):
        for reward in wanted:
            if reward not in rewards.names():
                raise ConfigError(
                    f"{where}: key {key!r} names the reward {reward!r}; valid: {', '.join(rewards.names())}"
                )
    if task.features not in feature_names():
        valid = ", ".join(feature_names())
        raise ConfigError(f"{where}: key 'features' names the encoder {task.features!r}; valid: {valid}")
    path = Path(task.prompts)
    if prompt_sets.is_pending(path):
        return task  # its own job makes it and checks it
    if not path.exists():
        raise ConfigError(f"{where}: key 'prompts': {path} does not exist")
    try:
        prompts = read_prompts(path)
        for name in task.rewards():
            rewards.get_class(name).check_prompts(prompts)
    except ValueError as error:
        raise ConfigError(f"{where}: key 'prompts' ({path}): {error}") from None
    tags = {p["tag"] for p in prompts}
    for tag in task.tag_weights:
        if tag not in tags:
            raise ConfigError(f"{where}: key 'tag_weights.{tag}'; tags in {path}: {', '.join(sorted(tags))}")
    if task.tag_weights and not any(task.tag_weights.values()):
        raise ConfigError(f"{where}: key 'tag_weights' weighs every tag 0; valid: one above 0")
    return task


def method_names() -> list[str]:
    """Every row of ``config/methods``."""
    return sorted(path.stem for path in (CONFIG / "methods").glob("*.yaml"))


def task_names() -> list[str]:
    """Every file of ``config/tasks``."""
    return sorted(path.stem for path in (CONFIG / "tasks").glob("*.yaml"))


@functools.cache
def load_method(name: str) -> MethodFile:
    value, where = _file("methods", name)
    method = parse(MethodFile, value, where)
    if method.algorithm not in methods.names():
        raise ConfigError(
            f"{where}: key 'algorithm' is {method.algorithm!r}; valid: {', '.join(methods.names())}"
        )
    given = {k: in_steps(v, 1, f"{where}: parameters: key {k!r}") for k, v in method.parameters.items()}
    parse(methods.get(method.algorithm).Config, given, f"{where}: parameters")
    return method


def weights_of(base: BaseModelConfig, task: TaskConfig) -> dict[str, str]:
    """Recorded sha256 of the shipped files that a run reads, and commits of its rewards' hub repositories."""
    try:
        recorded = read_checksums(RESOURCES)
    except (
        ValueError
    ):  # to be made again; what reads weights says so before it starts (workflow/readiness.py)
        recorded = {}
    prefixes = (
        [str(Path(base.path).relative_to(RESOURCES))] if Path(base.path).is_relative_to(RESOURCES) else []
    )
    plugins = [rewards.get_class(name) for name in task.rewards()]
    plugins.append(get_features_class(task.features))
    for plugin in plugins:
        prefixes += plugin.weights
    shipped = {name: digest for name, digest in recorded.items() if name.startswith(tuple(prefixes))}
    return dict(sorted({**shipped, **commits(plugins)}.items()))
