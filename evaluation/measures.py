"""What training cost the base model, measured on velocities instead of images: KL from it, diffusion loss.

Both run in the training precision on fixed random numbers, so that the untrained adapter is at a KL of 0 and
methods are compared on the same noise.
"""

from __future__ import annotations

import torch

from base_models.base import POLICY, BaseModel, Embeddings
from methods.maths.sde import flow_sde_step
from processes.sampling import noise

KL, DIFFUSION_LOSS = "kl_from_base", "diffusion_loss"
LEVELS = 8  # noise shares of the diffusion loss


@torch.no_grad()
def kl_from_base(
    model: BaseModel,
    embeddings: Embeddings,
    initial: torch.Tensor,
    *,
    noise_level: float,
    rng: torch.Generator,
    batch: int,
    empty: Embeddings | None = None,
) -> float:
    """KL of the policy's stochastic denoising path from the base model's, in nats per image.

    The path is Flow-GRPO's SDE (arXiv 2505.05470, Eq. 9) from ``initial`` (N, ...), one image per prompt: the
    policy draws it, and each of its Gaussian steps is compared with the base model's step from the same
    latent. The sum over steps is exact for these paths and bounds the KL between the images from above.
    """
    sigmas, x, total = model.sigmas(model.config.rollout_steps).to(model.device), initial, 0.0
    for i in range(model.config.rollout_steps):
        moved = []
        for rows in torch.arange(len(x)).split(batch):
            inputs = x[rows], sigmas[i].expand(len(rows)), embeddings[rows], empty
            common = {"sigma_second": sigmas[1], "noise_level": noise_level}
            common["noise"] = noise(tuple(x[rows].shape), rng, model.device)
            with model.using(POLICY):
                ours = flow_sde_step(model.velocity(*inputs), x[rows], sigmas[i], sigmas[i + 1], **common)
            with model.using(None):
                base = flow_sde_step(model.velocity(*inputs), x[rows], sigmas[i], sigmas[i + 1], **common)
            squared = (ours.mean - base.mean) ** 2 / (2 * ours.noise_std**2)
            total += squared.double().sum().item()
            moved.append(ours.x_next)
        x = torch.cat(moved)
    return total / len(initial)


@torch.no_grad()
def diffusion_loss(
    model: BaseModel, embeddings: Embeddings, data: torch.Tensor, rng: torch.Generator, batch: int
) -> float:
    """Flow-matching loss on ``data`` (N, ...), one latent per prompt, at evenly spread noise shares."""
    total = 0.0
    for level in range(LEVELS):
        eps = noise(tuple(data.shape), rng, model.device)
        s = (level + 0.5) / LEVELS
        for rows in torch.arange(len(data)).split(batch):
            x = (1 - s) * data[rows] + s * eps[rows]
            sigma = torch.full((len(rows),), s, device=model.device)
            with model.using(POLICY):
                error = model.predict(x, sigma, embeddings[rows]) - (eps[rows] - data[rows])
            total += error.square().flatten(1).mean(1).double().sum().item()
    return total / (LEVELS * len(data))
