"""Sampling: stochastic trajectories for training, deterministic images for evaluation and data."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from base_models.base import BaseModel, Prompts
from methods.sde import STEPS


@dataclass
class Trajectories:
    """T stochastic denoising steps of N images.

    - ``latents`` (T + 1, N, ...): from noise to the final latent.
    - ``means`` (T, N, ...) and ``log_probs`` (T, N) of the transitions taken.
    - ``sigmas`` (T + 1,).
    """

    latents: torch.Tensor
    means: torch.Tensor
    log_probs: torch.Tensor
    sigmas: torch.Tensor


def noise(shape: tuple[int, ...], rng: torch.Generator, device: torch.device) -> torch.Tensor:
    """Gaussian noise drawn on the CPU, so that every device starts from the same numbers."""
    return torch.randn(shape, generator=rng).to(device)


@torch.no_grad()
def sample_trajectories(
    model: BaseModel,
    prompts: Prompts,
    initial: torch.Tensor,
    *,
    steps: int,
    sde: str,
    noise_level: float,
    rng: torch.Generator,
    batch: int,
    empty: Prompts | None = None,
) -> Trajectories:
    """Roll the policy out from ``initial`` (N, ...) with an SDE of ``methods.sde``."""
    sigmas = model.sigmas(steps).to(model.device)
    step = STEPS[sde]
    latents, means, log_probs = [initial], [], []
    for i in range(steps):
        x, eps = latents[-1], noise(tuple(initial.shape), rng, model.device)
        parts = []
        for rows in torch.arange(len(x)).split(batch):
            v = model.velocity(x[rows], sigmas[i].expand(len(rows)), prompts[rows], empty)
            parts.append(
                step(
                    v,
                    x[rows],
                    sigmas[i],
                    sigmas[i + 1],
                    sigma_second=sigmas[1],
                    noise_level=noise_level,
                    noise=eps[rows],
                )
            )
        latents.append(torch.cat([p.x_next for p in parts]))
        means.append(torch.cat([p.mean for p in parts]))
        log_probs.append(torch.cat([p.log_prob for p in parts]))
    return Trajectories(torch.stack(latents), torch.stack(means), torch.stack(log_probs), sigmas)


@torch.no_grad()
def sample_ode(
    model: BaseModel,
    prompts: Prompts,
    initial: torch.Tensor,
    *,
    steps: int,
    batch: int,
    empty: Prompts | None = None,
) -> torch.Tensor:
    """Deterministic Euler sampling, latents (N, ...) from noise (N, ...)."""
    sigmas = model.sigmas(steps).to(model.device)
    finished = []
    for rows in torch.arange(len(initial)).split(batch):
        x = initial[rows]
        for i in range(steps):
            v = model.velocity(x, sigmas[i].expand(len(rows)), prompts[rows], empty)
            x = x + (sigmas[i + 1] - sigmas[i]) * v
        finished.append(x)
    return torch.cat(finished)


def decode(model: BaseModel, latents: torch.Tensor, batch: int) -> torch.Tensor:
    """Images float32 (N, 3, H, W) in [0, 1], quantised to 8 bits as a saved file would be."""
    images = torch.cat([model.decode(z) for z in latents.split(batch)])
    return (images * 255).round() / 255
