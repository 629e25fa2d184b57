"""Sampling: stochastic trajectories for training, deterministic images for evaluation and data."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import torch

from base_models.base import BaseModel, Embeddings
from methods.maths.sde import STEPS, Step

DECODED_TOGETHER = 36  # images at most: the activations of more leave a processor's cache


@dataclass(frozen=True)
class Transition:
    """The stochastic denoising step of ``methods.maths.sde`` on a schedule ``sigmas`` (T + 1,)."""

    sde: str
    noise_level: float
    sigmas: torch.Tensor

    def __call__(
        self, velocity: torch.Tensor, x: torch.Tensor, step: int | torch.Tensor, *, x_next=None, noise=None
    ) -> Step:
        """From ``x`` (R, ...) at denoising ``step``, one for all rows or long (R,)."""
        return STEPS[self.sde](
            velocity,
            x,
            self.sigmas[step],
            self.sigmas[step + 1],
            sigma_second=self.sigmas[1],
            noise_level=self.noise_level,
            x_next=x_next,
            noise=noise,
        )


@dataclass
class Trajectories:
    """T denoising steps of N images.

    - ``latents`` (T + 1, N, ...): from noise to the final latent, or (1, N, ...), the final ones alone.
    - ``sigmas`` (T + 1,).
    - ``source`` (T, N), long, on the CPU: an image with the same prompt and at this step the same latent,
      hence the same velocity; the image itself, or the first of its group in the same micro-batch of the
      rollout, until noise parts them.
    - ``transition`` and ``log_probs`` (T, N) of the transitions taken, if stochastic.
    - ``velocities`` (T, N, ...), if kept: what the policy predicted, the stochastic steps with their graph.
    """

    latents: torch.Tensor
    sigmas: torch.Tensor
    source: torch.Tensor
    transition: Transition | None = None
    log_probs: torch.Tensor | None = None
    velocities: torch.Tensor | None = None

    @staticmethod
    def join(parts: list[Trajectories]) -> Trajectories:
        """The images of several micro-batches, without their graphs."""
        first = parts[0]
        if len(parts) == 1:
            return first
        joined = {
            name: torch.cat([getattr(p, name) for p in parts], dim=1)
            for name in ("latents", "log_probs")
            if getattr(first, name) is not None
        }
        before = itertools.accumulate((p.latents.shape[1] for p in parts), initial=0)
        joined["source"] = torch.cat(
            [p.source + start for p, start in zip(parts, before, strict=False)], dim=1
        )
        return replace(first, **joined, velocities=None)

    def again(self, velocity: torch.Tensor, step: torch.Tensor, image: torch.Tensor) -> Step:
        """The transitions taken at R (step, image) pairs as another ``velocity`` (R, ...) has them."""
        x, x_next = self.latents[step, image], self.latents[step + 1, image]
        return self.transition(velocity, x, step, x_next=x_next)


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
    embeddings: Embeddings,
    initial: torch.Tensor,
    transition: Transition,
    stochastic: range,
    noises: torch.Tensor,
    *,
    group: torch.Tensor | None = None,
    empty: Embeddings | None = None,
    keep_graph: bool = False,
) -> Trajectories:
    """Roll the policy out from ``initial`` (N, ...) in one batch: ``transition`` on the ``stochastic`` steps,
    with ``noises`` (len(stochastic), N, ...), and the Euler step of the ODE on the others, whose
    log-probability is stored as 0.

    Args:
        group: a number (N,) for each image; equal ones have the same prompt and the same ``initial``.
            Until the first stochastic step their velocity is computed once.
        keep_graph: for a gradient step of the policy that rolled out, which needs no forward pass then.
    """
    sigmas = transition.sigmas
    own = torch.arange(len(initial))
    first, inverse = distinct(own if group is None else group)
    latents, log_probs, source, velocities = [initial], [], [], []
    for i in range(len(sigmas) - 1):
        x = latents[-1]
        rows, back = (first, inverse) if i <= stochastic.start else (own, own)
        with torch.set_grad_enabled(keep_graph and i in stochastic):
            v = model.velocity(x[rows], sigmas[i].expand(len(rows)), embeddings[rows], empty)[back]
            velocities.append(v)
        source.append(rows[back])
        if i in stochastic:
            taken = transition(v, x, i, noise=noises[stochastic.index(i)])
            latents.append(taken.x_next)
            log_probs.append(taken.log_prob)
        else:
            latents.append(x + (sigmas[i + 1] - sigmas[i]) * v)
            log_probs.append(torch.zeros(len(x), device=x.device))
    trajectories = Trajectories(
        torch.stack(latents), sigmas, torch.stack(source), transition, torch.stack(log_probs)
    )
    if keep_graph:
        with torch.enable_grad():
            trajectories.velocities = torch.stack(velocities)
    return trajectories


@torch.no_grad()
def sample_ode(
    model: BaseModel,
    embeddings: Embeddings,
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
            v = model.velocity(x, sigmas[i].expand(len(rows)), embeddings[rows], empty)
            x = x + (sigmas[i + 1] - sigmas[i]) * v
        finished.append(x)
    return torch.cat(finished)


def decode(model: BaseModel, latents: torch.Tensor, batch: int) -> torch.Tensor:
    """Media float32 (N, ..., 3, H, W) in [0, 1], quantised to 8 bits as a saved file would be."""
    media = torch.cat([model.decode(z) for z in latents.split(min(batch, DECODED_TOGETHER))])
    return (media * 255).round() / 255
