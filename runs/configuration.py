"""What a run is: every setting with its type and range. ``run.yaml`` is one ``RunConfig``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from base_models.configuration import BaseModelConfig
from core.settings import ConfigError, Name, Settings, parse, read_yaml
from methods.maths.diversity import DIVERSITY
from methods.maths.sde import STEPS

SHARE = "share_of_run"
MOST = 10**7  # of anything that is counted: a slip of the keyboard is not trained


class TrainingConfig(Settings):
    """Everything about time and batches. Defaults stand in the task files, not here."""

    iterations: int = Field(ge=0, le=MOST, description="rollout and update rounds; 0 keeps the base model")
    prompts_per_iteration: int = Field(ge=1, le=MOST)
    group_size: int = Field(ge=1, le=MOST, description="images per prompt and iteration")
    gradient_steps: int = Field(ge=1, le=MOST, description="optimiser steps per iteration")
    trained_steps: int = Field(ge=1, description="denoising steps per image that enter the loss")
    trained_stride: int | None = Field(
        None,
        ge=1,
        exclude_if=lambda value: value is None,
        description="of every so many stochastic steps the first may enter the loss; null: any may",
    )
    optimised_reward: Literal["proxy", "shuffled", "gold"] = Field(
        "proxy",
        description="what the method is given as the reward; shuffled: the proxy, permuted within each "
        "group, a negative control; gold: the task's gold reward, the ceiling",
    )
    shuffled_from: float = Field(
        0.0, ge=0, lt=1, description="share of the run before which a shuffled reward is still the true one"
    )
    forward_steps: int | None = Field(
        None, ge=1, description="noise levels per image in a forward-process loss; null: trained_steps"
    )
    sde: Literal[tuple(STEPS)] = "flow_sde"  # type: ignore[valid-type]
    noise_level: float = Field(gt=0)
    sde_first: int = Field(ge=0, description="first stochastic denoising step; the steps outside are an ODE")
    sde_steps: int = Field(ge=1, description="number of stochastic denoising steps")
    same_initial_noise: bool = Field(description="all images of a group start from one noise")
    learning_rate: float = Field(gt=0, le=1)
    weight_decay: float = Field(ge=0)
    max_grad_norm: float = Field(gt=0)
    ema_decay: float = Field(ge=0, lt=1, description="0 evaluates the live weights")
    ema_schedule: Literal["iteration", "official_code"] = Field(
        "iteration",
        description="the average of the weights moves once per iteration, or as in Flow-GRPO's public code: "
        "at every eighth gradient step, eight times, with a warm-up",
    )
    micro_batch: int = Field(
        ge=1,
        description="images per forward pass of a rollout, different (prompt, latent, step) states per "
        "forward pass of an update; no effect on the result",
    )
    overlap_rewards: bool = Field(
        False, description="score a micro-batch of images in a thread while the next one is generated"
    )
    data: Literal["none", "synthetic", "real"] = Field("none", description="data of DDRL's diffusion loss")
    data_share: float = Field(0.25, gt=0, le=1, description="data rows per policy row")
    monitor_every: int = Field(10, ge=1, description="iterations between looks at the monitored metrics")
    checkpoint_every: int = Field(20, ge=1, description="iterations")


class TaskTraining(Settings):
    """What a training run must know of its task."""

    proxy: str = Field(description="reward that training optimises")
    auxiliary: list[str] = Field([], description="rewards that GARDO's gate sees")
    gold: str | None = Field(None, description="reward that measures the truth; null where nobody can")
    monitor: list[str] = Field(
        [], description="metrics logged on rollouts, never optimised; diversity is one of them"
    )
    features: str = Field(description="encoder of the diversity features")
    prompts: str = Field(description="training prompts, jsonl")
    tag_weights: dict[str, Annotated[float, Field(ge=0)]] = Field(
        {}, description="share of each tag; empty: as in the file"
    )

    def rewards(self) -> list[str]:
        """Every reward that a run may ask, the proxy first."""
        gold = [self.gold] if self.gold else []
        monitored = [name for name in self.monitor if name != DIVERSITY]
        return list(dict.fromkeys([self.proxy, *self.auxiliary, *gold, *monitored]))


class StepCost(Settings):
    """What one gradient step takes, its share of sampling and scoring included; only the plan reads it."""

    seconds: float | None = Field(None, gt=0, description="null: nobody has measured it")
    gpus: int = Field(ge=0, description="GPUs of one run; 0 runs on a processor")
    hardware: str = Field(description="that the seconds were measured on")
    source: str = Field(description="where the seconds come from")


class TaskConfig(TaskTraining):
    """One file in ``config/tasks/``: the training part, and what evaluation, data, tables and plan need."""

    label: str
    proxy_metric: str = Field(description="metric that stands for the proxy in tables")
    suites: list[Name] = Field(min_length=1, description="evaluation suites; the first is the task's own")
    training: dict[str, Any] = {}
    base_model: dict[str, Any] = Field({}, description="settings of the base model that the task changes")
    real_data: str | None = Field(
        None, description="real images of DDRL: a folder with metadata.jsonl, or 'scenes' to draw the prompts"
    )
    step_cost: StepCost | None = None


class MethodFile(Settings):
    """One file in ``config/methods/``."""

    label: str
    algorithm: str = Field(description="file in methods/")
    source: str = Field(description="paper or repository it follows")
    start_from: Name | None = Field(
        None, description="method whose trained adapter of the same base, task and seed this one starts from"
    )
    adapter_scale: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="LoRA scaling: the share of that adapter's change of the weights, without any training",
    )
    best_of: int | None = Field(
        None, ge=2, description="best-of-n: of so many images of the base model the proxy keeps one"
    )
    parameters: dict[str, Any] = {}
    training: dict[str, Any] = {}

    @model_validator(mode="after")
    def _evaluated_only(self):
        """What is only evaluated is not trained as well."""
        given = [key for key in ("adapter_scale", "best_of") if getattr(self, key) is not None]
        if given and self.training.get("iterations") != 0:
            raise ValueError(f"{given[0]} trains nothing: give training: {{iterations: 0}}")
        if (self.start_from is None) == (self.adapter_scale is not None):
            if given:
                raise ValueError("adapter_scale needs start_from, and best_of is of the base model")
        return self


class Start(Settings):
    """The finished run whose adapter a run starts from; the hash ties it to that run's configuration."""

    run: str
    hash: str
    scale: float = Field(1.0, description="of the adapter's change of the weights")


class RunConfig(Settings):
    """The whole of one training run; written once, never edited."""

    run: str
    base: str
    task: str
    method: str
    seed: int = Field(ge=0)
    base_model: BaseModelConfig
    task_settings: TaskTraining
    algorithm: str
    parameters: dict[str, Any]
    training: TrainingConfig
    start: Start | None = None
    best_of: int | None = Field(None, description="images per prompt that the proxy chooses one of")
    snapshots: list[int] = Field([], description="iterations whose adapter is kept for evaluation")
    weights: dict[str, str] = Field(
        {}, description="sha256 of files under resources/ and commits of hub repositories that the run reads"
    )
    hash: str

    def content(self) -> dict[str, Any]:
        """What ``run.yaml`` holds; without what only a row that is evaluated without training has."""
        content = self.model_dump()
        if self.best_of is None:
            del content["best_of"]
        if self.start and self.start.scale == 1:
            del content["start"]["scale"]
        return content


def in_steps(value, steps: int, where: str):
    """A parameter; one given as ``{share_of_run: x}`` becomes that share of the run's gradient steps."""
    if not isinstance(value, dict):
        return value
    share = value.get(SHARE)
    if set(value) != {SHARE} or isinstance(share, bool) or not isinstance(share, (int, float)):
        raise ConfigError(f"{where} is {value!r}; valid: a value, or {{{SHARE}: number above 0, at most 1}}")
    if not 0 < share <= 1:
        raise ConfigError(f"{where}: {SHARE} is {share!r}; valid: above 0, at most 1")
    return max(1, round(share * steps))


def load_run(folder: Path) -> RunConfig:
    """The ``run.yaml`` of a run folder."""
    path = Path(folder) / "run.yaml"
    return parse(RunConfig, read_yaml(path), str(path))
