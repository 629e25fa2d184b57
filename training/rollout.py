"""Sampling: stochastic trajectories for training, deterministic images for evaluation and data."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch

from base_models.base import BaseModel, Embeddings
from methods.sde import STEPS

DECODED_TOGETHER = 36  # images at most: the activations of more leave a processor's cache


@dataclass
class Trajectories:
    """T stochastic denoising steps of N images.

    - ``latents`` (T + 1, N, ...): from noise to the final latent.
    - ``means`` (T, N, ...) and ``log_probs`` (T, N) of the transitions taken.
    - ``sigmas`` (T + 1,).
    - ``source`` (T, N), long, on the CPU: an image with the same prompt and at this step the same latent,
      hence the same velocity; the image itself, or the first of its group in the same micro-batch of the
      rollout, until noise parts them.
    - ``velocities`` (T, N, ...), if kept: what the policy predicted, the stochastic steps with their graph.
    """

    latents: torch.Tensor
    means: torch.Tensor
    log_probs: torch.Tensor
    sigmas: torch.Tensor
    source: torch.Tensor
    velocities: torch.Tensor | None = None

    @staticmethod
    def join(parts: list[Trajectories]) -> Trajectories:
        """The images of several micro-batches, without their graphs."""
        first = parts[0]
        if len(parts) == 1:
            return first
        latents, means, log_probs = (
            torch.cat([getattr(p, name) for p in parts], dim=1) for name in ("latents", "means", "log_probs")
        )
        before = itertools.accumulate((p.latents.shape[1] for p in parts), initial=0)
        source = torch.cat([p.source + start for p, start in zip(parts, before, strict=False)], dim=1)
        return Trajectories(latents, means, log_probs, first.sigmas, source)


def distinct(keys: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``first`` (K,), where each of K different keys (n,) stands first, and ``inverse`` (n,), so that
    ``keys[first][inverse]`` are the keys."""
    values, inverse = keys.unique(return_inverse=True)
    rows = torch.arange(len(keys))
    first = torch.full((len(values),), len(keys)).scatter_reduce(0, inverse, rows, "amin")
    return first, inverse


def noise(shape: tuple[int, ...], rng: torch.Generator, device: torch.device) -> torch.Tensor:
    """Gaussian noise drawn on the CPU, so that every device starts from the same numbers."""
    return torch.randn(shape, generator=rng).to(device)


@torch.no_grad()
def sample_trajectories(
    model: BaseModel,
    prompts: Embeddings,
    initial: torch.Tensor,
    *,
    steps: int,
    sde: str,
    noise_level: float,
    stochastic: range,
    noises: torch.Tensor,
    group: torch.Tensor | None = None,
    empty: Embeddings | None = None,
    keep_graph: bool = False,
) -> Trajectories:
    """Roll the policy out from ``initial`` (N, ...) in one batch: an SDE of ``methods.sde`` on the
    ``stochastic`` steps, with ``noises`` (len(stochastic), N, ...), and the Euler step of the ODE on the
    others, whose log-probability is stored as 0.

    Args:
        group: a number (N,) for each image; equal ones have the same prompt and the same ``initial``.
            Until the first stochastic step their velocity is computed once.
        keep_graph: for a gradient step of the policy that rolled out, which needs no forward pass then.
    """
    sigmas = model.sigmas(steps).to(model.device)
    step = STEPS[sde]
    own = torch.arange(len(initial))
    first, inverse = distinct(own if group is None else group)
    latents, means, log_probs, source, velocities = [initial], [], [], [], []
    for i in range(steps):
        x = latents[-1]
        rows, back = (first, inverse) if i <= stochastic.start else (own, own)
        with torch.set_grad_enabled(keep_graph and i in stochastic):
            v = model.velocity(x[rows], sigmas[i].expand(len(rows)), prompts[rows], empty)[back]
            velocities.append(v)
        source.append(rows[back])
        if i in stochastic:
            eps = noises[stochastic.index(i)]
            taken = step(
                v, x, sigmas[i], sigmas[i + 1], sigma_second=sigmas[1], noise_level=noise_level, noise=eps
            )
            latents.append(taken.x_next)
            means.append(taken.mean)
            log_probs.append(taken.log_prob)
        else:
            latents.append(x + (sigmas[i + 1] - sigmas[i]) * v)
            means.append(latents[-1])
            log_probs.append(torch.zeros(len(x), device=x.device))
    stacked = (torch.stack(values) for values in (latents, means, log_probs))
    trajectories = Trajectories(*stacked, sigmas, torch.stack(source))
    if keep_graph:
        with torch.enable_grad():
            trajectories.velocities = torch.stack(velocities)
    return trajectories


@torch.no_grad()
def sample_ode(
    model: BaseModel,
    prompts: Embeddings,
    initial: torch.Tensor,
    *,
    steps: int,
    batch: int,
    empty: Embeddings | None = None,
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
    images = torch.cat([model.decode(z) for z in latents.split(min(batch, DECODED_TOGETHER))])
    return (images * 255).round() / 255
