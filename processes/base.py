"""The contract between a process and the training loop.

Trainer's whole update is

    for batches in process.gradient_steps(process.collect(iteration)):
        for batch in batches:
            method.loss(batch).backward()

with an optimiser step after each gradient step's batches.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import torch

from base_models.base import POLICY, BaseModel, Embeddings
from methods import Batch, ForwardBatch, Method, Needs, SupervisedBatch

if TYPE_CHECKING:
    from runs.configuration import RunConfig
    from training.data import DataSet
    from training.prompts import PromptSet
    from training.ranks import Ranks

REFERENCE = "reference"
OLD = "old"  # the policy that makes the images of a forward process
ANCHOR = "anchor"  # a moving average of the policy beside it

AnyBatch = Batch | ForwardBatch | SupervisedBatch


class Inputs(NamedTuple):
    """What a velocity field is given at R states: ``x`` (R, ...), ``sigma`` (R,) and ``embeddings`` (R)."""

    x: torch.Tensor
    sigma: torch.Tensor
    embeddings: Embeddings | None

    def of(self, index: torch.Tensor) -> Inputs:
        """The states of a long or boolean index."""
        embeddings = None if self.embeddings is None else self.embeddings[index]
        return Inputs(self.x[index], self.sigma[index], embeddings)

    def followed_by(self, other: Inputs) -> Inputs:
        """The states of both, for one forward pass."""
        embeddings = None
        if self.embeddings is not None:
            embeddings = Embeddings.join([self.embeddings, other.embeddings])
        return Inputs(torch.cat([self.x, other.x]), torch.cat([self.sigma, other.sigma]), embeddings)


@dataclass
class Policies:
    """The velocity fields that batches are built from, (R, ...) each; only the policy's carries gradients."""

    model: BaseModel
    adaptive_reference: bool
    empty: Embeddings | None = None

    @property
    def guided(self) -> bool:
        """Whether velocities are guided, and so differ from the conditional ones."""
        return self.model.classifier_free_guidance

    def policy(self, at: Inputs) -> torch.Tensor:
        with self.model.using(POLICY):
            return self.model.velocity(*at, self.empty)

    def conditional(self, at: Inputs) -> torch.Tensor:
        """The policy's velocity without guidance: what a diffusion loss on data is about."""
        with self.model.using(POLICY):
            return self.model.predict(*at)

    @torch.no_grad()
    def reference(self, at: Inputs) -> torch.Tensor:
        with self.model.using(REFERENCE if self.adaptive_reference else None):
            return self.model.velocity(*at, self.empty)

    @torch.no_grad()
    def old(self, at: Inputs) -> torch.Tensor:
        with self.model.using(OLD):
            return self.model.velocity(*at, self.empty)

    @torch.no_grad()
    def anchor(self, at: Inputs) -> torch.Tensor:
        with self.model.using(ANCHOR):
            return self.model.velocity(*at, self.empty)


@dataclass
class Experience:
    """What one iteration has collected. ``logged``: numbers for the history by name."""

    iteration: int
    images: int = 0
    reward_calls: int = 0
    logged: dict[str, float] = field(default_factory=dict)


class Process(ABC):
    """One plug-in file ``processes/<name>.py`` holds one subclass whose ``name`` is the file's name."""

    name: ClassVar[str]
    shown: ClassVar[str]  # the number of the history that tells how training goes
    copies: ClassVar[tuple[str, ...]] = ()  # of the policy's adapter that it needs
    valid: ClassVar[dict[str, tuple]] = {}  # values of ``Needs`` that it can serve, where not all

    def __init__(
        self,
        run: RunConfig,
        method: Method,
        model: BaseModel,
        prompts: PromptSet,
        ranks: Ranks,
        data: DataSet | None = None,
    ):
        self.run, self.settings, self.method, self.model = run, run.training, method, model
        self.prompts, self.ranks, self.data = prompts, ranks, data
        self.needs = method.config.needs()
        self.policies = Policies(model, self.needs.adaptive_reference, prompts.empty)

    @classmethod
    def check(cls, needs: Needs) -> None:
        """Raises ``ValueError`` where the process cannot serve what a method needs."""
        for key, valid in cls.valid.items():
            value = getattr(needs, key)
            if value not in valid:
                choice = " or ".join(map(repr, valid))
                raise ValueError(f"the process {cls.name!r} cannot serve {key} = {value!r}; valid: {choice}")

    @abstractmethod
    def collect(self, iteration: int) -> Experience:
        """What this rank trains on in one iteration."""

    @abstractmethod
    def gradient_steps(self, experience: Experience) -> Iterator[Iterator[AnyBatch]]:
        """For each gradient step of the iteration, this rank's batches.

        A step's batches are built when they are asked for, under the policy as it is then. What is random is
        drawn for all ranks, so that it does not depend on their number.
        """

    def follow(self, updates: int) -> None:  # noqa: B027
        """Called after each iteration, ``updates`` gradient steps into the run."""


def noised(x0: torch.Tensor, noise: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """(1 - sigma) x0 + sigma noise, row by row; ``sigma`` (R,)."""
    column = sigma.reshape(-1, *[1] * (x0.dim() - 1))
    return (1 - column) * x0 + column * noise
