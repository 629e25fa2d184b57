"""The contract between a method and the training loop.

Training owns time (rollouts, batches, optimiser, checkpoints); a method owns the advantage, the loss
and what happens to the reference after an update. Its configuration says in ``needs`` what it wants
computed, and nothing else is. A process (``processes/``) collects what the batches are made of.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch

from core.settings import Settings
from methods.maths.latent_size import carried_over


@dataclass(frozen=True)
class Needs:
    """What training must compute for the method.

    - ``features``: diversity features of the rollout images.
    - ``auxiliary``: the task's auxiliary rewards of the rollout images.
    - ``reference``: reference velocities for no row, for gated rows or for all rows.
    - ``adaptive_reference``: the reference is a copy of the policy that can be reset; otherwise it is
      the frozen base model.
    - ``data``: batches of data latents with captions.
    - ``data_noise``: a data latent that stands beside an image's denoising step is noised with the image's
      initial noise (``rollout``) or with noise of its own (``fresh``).
    - ``process``: a file in ``processes/``. ``reverse`` trains on the denoising steps of a stochastic rollout
      (``Batch``), ``forward`` on noised final latents of an ODE rollout under the old policy
      (``ForwardBatch``), ``data`` on data alone, without rollout or reward (``SupervisedBatch``). What a
      process cannot give is refused when a run is resolved.

    The forward process alone:

    - ``old``: the old policy moves by an ``average`` and its velocities are computed; or it is the ``policy``
      as it was before the iteration's first gradient step, in which the ratio is therefore exactly 1; or the
      loss has no use for its velocities (``none``).
    - ``anchor``: velocities of a second moving average of the policy, which makes no images.
    - ``together``: rows that the loss compares and that therefore stand in one batch: those of a ``prompt``
      at one noise level, or all of one ``level``.
    - ``shared_noise``: the images of a prompt are noised alike at a noise level.
    """

    features: bool = False
    auxiliary: bool = False
    reference: Literal["none", "gated", "all"] = "none"
    adaptive_reference: bool = False
    data: bool = False
    data_noise: Literal["rollout", "fresh"] = "rollout"
    process: str = "reverse"
    old: Literal["average", "policy", "none"] = "average"
    anchor: bool = False
    together: Literal["none", "prompt", "level"] = "none"
    shared_noise: bool = False


class MethodConfig(Settings):
    """Base of every method's parameters: frozen, and a misspelt key is an error.

    Thresholds that depend on the latent's size (``methods.maths.latent_size``) are stated for the papers'.
    """

    def needs(self) -> Needs:
        """What a method with these parameters wants computed."""
        return Needs()


@dataclass
class Rollout:
    """One iteration's N generated images, seen as numbers.

    - ``rewards``: proxy reward, float (N,).
    - ``groups``: index of the prompt of each image, long (N,).
    - ``auxiliary``: auxiliary rewards, float (K, N), if needed.
    - ``features``: diversity features, float (N, D), if needed.
    - ``generator``: random numbers of this iteration for a method that draws.
    """

    rewards: torch.Tensor
    groups: torch.Tensor
    auxiliary: torch.Tensor | None = None
    features: torch.Tensor | None = None
    generator: torch.Generator | None = None


@dataclass
class DataBatch:
    """Data latents noised for the diffusion loss: target velocity is ``noise - x0``, shapes (M, ...)."""

    x0: torch.Tensor
    noise: torch.Tensor
    velocity: torch.Tensor


@dataclass
class Batch:
    """B rows, each one (image, denoising step) pair of the rollout, under the current policy.

    Shapes: (B, ...) for latents, (B,) for the rest. ``std`` is the SDE's diffusion coefficient as it
    enters the KL (for Flow-GRPO without sqrt(-dt)), ``noise_std`` the standard deviation of ``x_next``;
    both (B, 1, ...). ``reference_mean`` has one row for each true entry
    of ``reference_rows`` and is None where the method needs no reference in this batch.

    ``step`` (B,), long, on the CPU, is the denoising step of each row, counted from the noise.

    ``rows`` and ``gated_rows`` count the whole gradient step that this micro-batch belongs to; losses
    are sums over the micro-batch divided by them, so the result does not depend on how rows are split.
    """

    x_next: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor
    noise_std: torch.Tensor
    log_prob: torch.Tensor
    old_mean: torch.Tensor
    old_log_prob: torch.Tensor
    advantages: torch.Tensor
    gate: torch.Tensor
    step: torch.Tensor
    rows: int
    gated_rows: int
    reference_rows: torch.Tensor | None = None
    reference_mean: torch.Tensor | None = None
    data: DataBatch | None = None
    data_rows: int = 0


@dataclass
class ForwardBatch:
    """B rows, each one (image, noise share t) pair: x_t = (1 - t) ``x0`` + t ``noise``.

    Velocities (B, ...) of the policy, of the old policy that made ``x0``, of the anchor, and of the
    reference, the last with one row for each true entry of ``reference_rows``; None where not needed.
    ``groups`` (B,), long, is the prompt of each row. The rest as in ``Batch``.
    """

    velocity: torch.Tensor
    old_velocity: torch.Tensor | None
    x0: torch.Tensor
    noise: torch.Tensor
    t: torch.Tensor
    advantages: torch.Tensor
    gate: torch.Tensor
    groups: torch.Tensor
    rows: int
    gated_rows: int
    reference_rows: torch.Tensor | None = None
    reference_velocity: torch.Tensor | None = None
    anchor_velocity: torch.Tensor | None = None

    @property
    def levels(self) -> torch.Tensor:
        """A number (B,) from 0 for each row: equal ones have one noise level."""
        return self.t.unique(return_inverse=True)[1]

    @property
    def levels_of_prompts(self) -> torch.Tensor:
        """A number (B,) from 0 for each row: equal ones have one prompt and one noise level."""
        both = torch.stack([self.levels, self.groups.to(self.t.device)])
        return both.unique(dim=1, return_inverse=True)[1]


@dataclass
class SupervisedBatch:
    """M data rows of a gradient step that has ``data_rows``."""

    data: DataBatch
    data_rows: int


@dataclass
class Prepared:
    """What a method makes of a rollout: advantages (N,), gate (N,) bool, numbers worth logging.

    ``trained`` (N,) bool: the images that enter the loss; None for all.
    """

    advantages: torch.Tensor
    gate: torch.Tensor
    metrics: dict[str, float] = field(default_factory=dict)
    trained: torch.Tensor | None = None


@dataclass
class Loss:
    """What a method makes of a micro-batch. Each part adds up over the gradient step.

    - ``value``: scalar, to be minimised.
    - ``steering``: what ``after_update`` is given, e.g. the KL that resets a reference.
    - ``logged``: terms by name, for the history alone.
    """

    value: torch.Tensor | None
    steering: float = 0.0
    logged: dict[str, float] = field(default_factory=dict)

    def backward(self) -> Loss:
        """Add the gradients of ``value``. What is left holds no graph."""
        self.value.backward()
        return replace(self, value=None)

    @staticmethod
    def total(parts: Iterable[Loss]) -> Loss:
        """The numbers of several parts of one gradient step, added up; without a value."""
        total = Loss(None)
        for part in parts:
            total.steering += part.steering
            for name, term in part.logged.items():
                total.logged[name] = total.logged.get(name, 0.0) + term
        return total


class Method(ABC):
    """One plug-in file ``methods/<name>.py`` holds one subclass whose ``name`` is the file's name."""

    name: ClassVar[str]
    Config: ClassVar[type[MethodConfig]] = MethodConfig

    def __init__(self, config: MethodConfig, latent_dimensions: int):
        """``latent_dimensions``: numbers in one latent, for which the thresholds of ``config`` hold then."""
        self.config = carried_over(config, latent_dimensions)

    def prepare(self, rollout: Rollout) -> Prepared:
        """Advantages and gate of one rollout. Called once per iteration; may move the method's state.

        A method whose process makes no images needs none.
        """
        raise NotImplementedError(f"methods/{self.name}.py makes no advantages of a rollout")

    @abstractmethod
    def loss(self, batch: Batch | ForwardBatch | SupervisedBatch) -> Loss:
        """Loss of a micro-batch."""

    def after_update(self, steering: float) -> bool:
        """Called after each gradient step with the sum of its losses' ``steering``.

        True: the reference becomes the policy.
        """
        return False

    def old_policy_decay(self, updates: int) -> float:
        """Share of itself that the old policy keeps after ``updates`` gradient steps (forward process)."""
        return 0.0

    def anchor_decay(self, updates: int) -> float:
        """Share of itself that the anchor keeps after ``updates`` gradient steps, if needed."""
        return 0.0

    def state_dict(self) -> dict[str, Any]:
        """State that must survive a checkpoint, as JSON types."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Inverse of ``state_dict``."""
