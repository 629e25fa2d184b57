"""DiffusionNFT's loss on clean latents and noise, without likelihoods (arXiv 2509.16117, Eq. 5).

With the optimality r in [0, 1], the data-collecting old policy v_old and guidance strength beta,

    v+ = (1 - beta) v_old + beta v_theta,    v- = (1 + beta) v_old - beta v_theta,
    L  = r ||x0(v+) - x0||^2 / w+  +  (1 - r) ||x0(v-) - x0||^2 / w-,    x0(v) = x_t - t v.

w is the prediction's own mean absolute error, without gradient (their "adaptive loss weighting").
"""

from __future__ import annotations

import torch

MIN_WEIGHT = 1e-5


def optimality(advantages: torch.Tensor, advantage_clip: float) -> torch.Tensor:
    """r = 1/2 + clip(A, +-c) / (2 c), (B,) in [0, 1] (NVlabs/DiffusionNFT ``train_nft_sd3.py``)."""
    return 0.5 + advantages.clamp(-advantage_clip, advantage_clip) / (2 * advantage_clip)


def denoising_error(
    velocity: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor, x0: torch.Tensor
) -> torch.Tensor:
    """Mean squared error of x_t - t v against x0 over its mean absolute error, per row, (B,)."""
    error = x_t - t.reshape(-1, *[1] * (x_t.dim() - 1)) * velocity - x0
    weight = error.detach().abs().flatten(1).mean(1).clamp(min=MIN_WEIGHT)
    return error.square().flatten(1).mean(1) / weight


def diffusion_nft_loss(
    velocity: torch.Tensor,
    old_velocity: torch.Tensor,
    x0: torch.Tensor,
    noise: torch.Tensor,
    t: torch.Tensor,
    advantages: torch.Tensor,
    beta: float,
    advantage_clip: float,
) -> torch.Tensor:
    """Policy loss per row, (B,); scaled by ``advantage_clip`` / ``beta`` as released.

    Args:
        velocity, old_velocity: of the policy and of the policy that made ``x0``, (B, ...).
        x0, noise: clean latent and fresh noise, (B, ...); x_t = (1 - t) x0 + t noise.
        t: noise share in (0, 1), (B,).
        advantages: (B,).
        beta: > 0.
    """
    r = optimality(advantages, advantage_clip)
    column = t.reshape(-1, *[1] * (x0.dim() - 1))
    x_t = (1 - column) * x0 + column * noise
    positive = denoising_error(beta * velocity + (1 - beta) * old_velocity, x_t, t, x0)
    negative = denoising_error((1 + beta) * old_velocity - beta * velocity, x_t, t, x0)
    return (r * positive + (1 - r) * negative) * advantage_clip / beta


def velocity_kl(velocity: torch.Tensor, reference_velocity: torch.Tensor) -> torch.Tensor:
    """mean (v - v_ref)^2 per row, (B,): what the released code penalises as KL."""
    return (velocity - reference_velocity).square().flatten(1).mean(1)
