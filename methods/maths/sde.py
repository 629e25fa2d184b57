"""One stochastic denoising step of a flow model, the published forms.

Symbols: sigma in (0, 1] is the noise share of x = (1 - sigma) x0 + sigma eps, v = eps - x0 the
velocity, sigma' < sigma the next noise share, dt = sigma' - sigma < 0. Sigmas are floats or tensors
that broadcast against the batch: shape (B,) or ().

Every step returns a ``Step``; ``log_prob`` is the MEAN over non-batch dimensions, as in all public
implementations, which is why published clip ranges are as small as 1e-4.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch


@dataclass
class Step:
    """Gaussian transition. ``std`` enters the KL, ``noise_std`` is the standard deviation of x_next."""

    mean: torch.Tensor
    std: torch.Tensor
    noise_std: torch.Tensor
    log_prob: torch.Tensor
    x_next: torch.Tensor


def _column(value: float | torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """A float or (B,) tensor as a tensor that broadcasts against x (B, ...)."""
    value = torch.as_tensor(value, dtype=x.dtype, device=x.device)
    return value.reshape(-1, *[1] * (x.dim() - 1)) if value.dim() else value


def _draw(mean: torch.Tensor, noise_std: torch.Tensor, x_next, noise) -> torch.Tensor:
    if x_next is not None:
        return x_next
    return mean if noise is None else mean + noise_std * noise


def _gaussian_log_prob(x_next: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    # x_next carries no gradient: it is an action that was taken.
    z = (x_next.detach() - mean) / std
    return (-0.5 * z**2 - torch.log(std) - 0.5 * math.log(2 * math.pi)).flatten(1).mean(1)


def flow_sde_step(
    velocity, x, sigma, sigma_next, *, sigma_second, noise_level, x_next=None, noise=None
) -> Step:
    """Flow-GRPO's SDE (arXiv 2505.05470, Eq. 9; flow_grpo ``sd3_sde_with_logprob.py``).

    s = a sqrt(sigma / (1 - sigma*)), sigma* = sigma except at sigma = 1, where the schedule's second
    sigma stands in. ``std`` is s, without sqrt(-dt).

    Args:
        velocity, x: (B, ...).
        sigma, sigma_next: float or (B,).
        sigma_second: the schedule's second sigma.
        noise_level: a >= 0.
        x_next: the action to evaluate; drawn with ``noise`` where None (the mean where both are None).
    """
    sigma, sigma_next = _column(sigma, x), _column(sigma_next, x)
    dt = sigma_next - sigma
    capped = torch.where(sigma >= 1, torch.as_tensor(sigma_second, dtype=x.dtype, device=x.device), sigma)
    s = noise_level * torch.sqrt(sigma / (1 - capped))
    drift = s**2 / (2 * sigma)
    mean = x * (1 + drift * dt) + velocity * (1 + drift * (1 - sigma)) * dt
    noise_std = s * torch.sqrt(-dt)
    x_next = _draw(mean, noise_std, x_next, noise)
    return Step(mean, s, noise_std, _gaussian_log_prob(x_next, mean, noise_std), x_next)


def flow_cps_step(
    velocity, x, sigma, sigma_next, *, sigma_second=None, noise_level, x_next=None, noise=None
) -> Step:
    """Coefficients-preserving sampling (arXiv 2509.05952; flow_grpo ``sd3_sde_with_logprob.py``).

    std = sigma' sin(a pi / 2); log_prob = -mean (x_next - mean)^2, constants dropped.
    """
    sigma, sigma_next = _column(sigma, x), _column(sigma_next, x)
    std = sigma_next * math.sin(noise_level * math.pi / 2)
    x0, x1 = x - sigma * velocity, x + (1 - sigma) * velocity
    mean = (1 - sigma_next) * x0 + torch.sqrt(sigma_next**2 - std**2) * x1
    x_next = _draw(mean, std, x_next, noise)
    log_prob = -(x_next.detach() - mean).square().flatten(1).mean(1)
    return Step(mean, std, std, log_prob, x_next)


def edm_churn_step(
    velocity, x, sigma, sigma_next, *, sigma_second=None, noise_level, x_next=None, noise=None
) -> Step:
    """The churned Euler step of EDM (arXiv 2206.00364) as DDRL's released code trains on it (cosmos-rl
    ``wfm_trainer.py``).

    In flow coordinates, y = x / (1 + sigma_edm), it is the step of coefficients-preserving sampling whose
    noise level is (2 / pi) arccos(1 / (1 + eta)) for a churn of eta. Only the log-probability differs: the
    released one is the mean squared distance in EDM's own coordinates, which are 1 / (1 - sigma') times as
    wide. It weighs the steps at high noise most, 25,000 times the last on 20 karras sigmas from 200.
    """
    step = flow_cps_step(velocity, x, sigma, sigma_next, noise_level=noise_level, x_next=x_next, noise=noise)
    width = 1 - torch.as_tensor(sigma_next, dtype=x.dtype, device=x.device)
    return replace(step, log_prob=step.log_prob / width**2)


def dance_sde_step(
    velocity, x, sigma, sigma_next, *, sigma_second=None, noise_level, x_next=None, noise=None
) -> Step:
    """DanceGRPO's SDE with constant eta = ``noise_level`` (arXiv 2505.07818; DanceGRPO ``flux_step``)."""
    sigma, sigma_next = _column(sigma, x), _column(sigma_next, x)
    dt = sigma_next - sigma
    x0 = x - sigma * velocity
    score = -(x - (1 - sigma) * x0) / sigma**2
    mean = x + dt * velocity - 0.5 * noise_level**2 * score * dt
    noise_std = noise_level * torch.sqrt(-dt)
    x_next = _draw(mean, noise_std, x_next, noise)
    return Step(
        mean,
        torch.full_like(dt, noise_level),
        noise_std,
        _gaussian_log_prob(x_next, mean, noise_std),
        x_next,
    )


STEPS: dict[str, Callable[..., Step]] = {
    "flow_sde": flow_sde_step,
    "flow_cps": flow_cps_step,
    "edm_churn": edm_churn_step,
    "dance_sde": dance_sde_step,
}
