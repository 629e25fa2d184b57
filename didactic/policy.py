"""A three-layer perceptron as velocity field, its pre-training and its samplers."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from didactic import mixture
from methods.sde import Step, flow_sde_step

STEPS, NOISE_LEVEL = 10, 0.7  # denoising steps; the SDE's noise level (flow_grpo config/grpo.py)
HIDDEN = 128
SIGMAS = torch.linspace(1, 0, STEPS + 1)
STOCHASTIC = range(STEPS - 1)  # the last step is that of the ODE: its noise would be part of the sample


class Velocity(torch.nn.Module):
    """v(x, sigma), (B, D) and (B,) -> (B, D)."""

    def __init__(self, dimensions: int = 2):
        super().__init__()
        self.dimensions = dimensions
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(dimensions + 3, HIDDEN),
            torch.nn.SiLU(),
            torch.nn.Linear(HIDDEN, HIDDEN),
            torch.nn.SiLU(),
            torch.nn.Linear(HIDDEN, dimensions),
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
    model = Velocity()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    for _ in range(updates):
        loss = flow_loss(model, mixture.sample(batch, rng), rng)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    return model


def transition(
    model: Velocity, x: torch.Tensor, step: torch.Tensor, x_next: torch.Tensor | None = None, noise=None
) -> Step:
    """The SDE's step at rows of different denoising steps. ``step``: long (B,)."""
    sigma = SIGMAS[step]
    return flow_sde_step(
        model(x, sigma),
        x,
        sigma,
        SIGMAS[step + 1],
        sigma_second=SIGMAS[1],
        noise_level=NOISE_LEVEL,
        x_next=x_next,
        noise=noise,
    )


@torch.no_grad()
def rollout(model: Velocity, n: int, rng: torch.Generator) -> torch.Tensor:
    """Trajectories (STEPS + 1, n, 2) of the SDE, the last step by the ODE."""
    path = [torch.randn(n, 2, generator=rng)]
    for i in range(STEPS):
        x, step = path[-1], torch.full((n,), i)
        if i in STOCHASTIC:
            path.append(transition(model, x, step, noise=torch.randn(n, 2, generator=rng)).x_next)
        else:
            path.append(x + (SIGMAS[i + 1] - SIGMAS[i]) * model(x, SIGMAS[step]))
    return torch.stack(path)
