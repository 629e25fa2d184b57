"""A three-layer perceptron as velocity field, its pre-training and its sampler."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from didactic import mixture
from methods.maths.sde import Step
from processes.sampling import Transition

HIDDEN = (
    128  # of the theorem's perceptron; the mixture's is narrower, because it is trained hundreds of times
)
MIXTURE_HIDDEN = 64


class Velocity(torch.nn.Module):
    """v(x, sigma), (B, D) and (B,) -> (B, D)."""

    def __init__(self, dimensions: int = 2, hidden: int = HIDDEN):
        super().__init__()
        self.dimensions = dimensions
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(dimensions + 3, hidden),
            torch.nn.SiLU(),
            torch.nn.Linear(hidden, hidden),
            torch.nn.SiLU(),
            torch.nn.Linear(hidden, dimensions),
        )

    def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        angle = torch.pi * sigma[:, None]
        return self.layers(torch.cat([x, sigma[:, None], angle.sin(), angle.cos()], dim=1))


def flow_loss(model: Velocity, x0: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Flow-matching loss with uniform sigma, scalar."""
    noise, sigma = torch.randn(x0.shape, generator=rng), torch.rand(len(x0), generator=rng)
    x = (1 - sigma[:, None]) * x0 + sigma[:, None] * noise
    return F.mse_loss(model(x, sigma), noise - x0)


def pretrain(seed: int, updates: int = 4000, batch: int = 512) -> Velocity:
    """The base model: flow matching on the mixture."""
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    model = Velocity(hidden=MIXTURE_HIDDEN)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    for _ in range(updates):
        loss = flow_loss(model, mixture.sample(batch, rng), rng)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    return model


@dataclass(frozen=True)
class Sampler:
    """Flow-GRPO's SDE on a uniform schedule, as a policy of Gaussian steps.

    ``last_by_ode``: the last step adds no noise and takes no part in training.
    """

    steps: int
    last_by_ode: bool
    noise_level: float = 0.7  # flow_grpo config/grpo.py

    @property
    def sigmas(self) -> torch.Tensor:
        return torch.linspace(1, 0, self.steps + 1)

    @property
    def stochastic(self) -> range:
        return range(self.steps - self.last_by_ode)

    @property
    def transition(self) -> Transition:
        return Transition("flow_sde", self.noise_level, self.sigmas)

    def step(self, model: Velocity, x: torch.Tensor, step: torch.Tensor, x_next=None, noise=None) -> Step:
        """The model's transitions from rows ``x`` (B, D) at denoising steps ``step``, long (B,)."""
        return self.transition(model(x, self.sigmas[step]), x, step, x_next=x_next, noise=noise)

    @torch.no_grad()
    def rollout(self, model: Velocity, n: int, rng: torch.Generator) -> torch.Tensor:
        """Paths from noise to sample, (steps + 1, n, D)."""
        sigmas, path = self.sigmas, [torch.randn(n, model.dimensions, generator=rng)]
        for i in range(self.steps):
            x, step = path[-1], torch.full((n,), i)
            if i in self.stochastic:
                noise = torch.randn(x.shape, generator=rng)
                path.append(self.step(model, x, step, noise=noise).x_next)
            else:
                path.append(x + (sigmas[i + 1] - sigmas[i]) * model(x, sigmas[step]))
        return torch.stack(path)

    def rows(self, path: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """All (sample, trained step) pairs of a rollout: x, x_next (R, D), step and sample (R,)."""
        n, steps = path.shape[1], len(self.stochastic)
        step, sample = torch.arange(steps).repeat_interleave(n), torch.arange(n).repeat(steps)
        return path[step, sample], path[step + 1, sample], step, sample
