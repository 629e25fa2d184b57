"""One gradient step on rows of a rollout: micro-batches, reference only where gated, data only for DDRL."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from base_models.base import BaseModel, Prompts
from methods import Batch, DataBatch, ForwardBatch, Method, SupervisedBatch
from methods.sde import STEPS
from training.rollout import Trajectories

REFERENCE = "reference"
OLD = "old"  # the policy that makes the images of a forward-process method


@dataclass
class Rows:
    """R (image, step) pairs of one gradient step, and where data rows stand beside them.

    ``image`` and ``step`` are long (R,); ``data_rows`` are positions in 0..R-1 that carry a data latent
    (the same prompt and sigma), ``data_x0`` and ``data_noise`` (M, ...) their values. ``noise`` (R, ...)
    noises the final latents of a forward-process method.
    """

    image: torch.Tensor
    step: torch.Tensor
    data_rows: torch.Tensor | None = None
    data_x0: torch.Tensor | None = None
    data_noise: torch.Tensor | None = None
    noise: torch.Tensor | None = None


def rows_of(images: torch.Tensor, steps: torch.Tensor) -> Rows:
    """All pairs of the images and the trained steps, step by step."""
    return Rows(images.repeat(len(steps)), steps.repeat_interleave(len(images)))


def _referenced(reference: str, gated: torch.Tensor) -> torch.Tensor:
    return gated if reference == "gated" else torch.full_like(gated, reference == "all")


def _noised(x0: torch.Tensor, noise: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """(1 - sigma) x0 + sigma noise, row by row; ``sigma`` (M,)."""
    column = sigma.reshape(-1, *[1] * (x0.dim() - 1))
    return (1 - column) * x0 + column * noise


def _backward(
    method: Method, batch: Batch | ForwardBatch | SupervisedBatch, totals: dict[str, float]
) -> None:
    """Gradients of one micro-batch; its terms are added to ``totals``."""
    loss, terms = method.loss(batch)
    loss.backward()
    for key, value in terms.items():
        totals[key] = totals.get(key, 0.0) + value


@torch.no_grad()
def reference_velocity(
    model: BaseModel,
    adaptive: bool,
    x: torch.Tensor,
    sigma: torch.Tensor,
    prompts: Prompts,
    empty: Prompts | None,
) -> torch.Tensor:
    with model.using(REFERENCE if adaptive else None):
        return model.velocity(x, sigma, prompts, empty)


def accumulate_gradients(
    model: BaseModel,
    method: Method,
    trajectories: Trajectories,
    prompts: Prompts,
    advantages: torch.Tensor,
    gate: torch.Tensor,
    rows: Rows,
    *,
    sde: str,
    noise_level: float,
    micro_batch: int,
    empty: Prompts | None = None,
    on_policy: bool = False,
) -> dict[str, float]:
    """Backward over all rows; gradients add up to those of one big batch. Returns the summed terms.

    ``on_policy``: the policy has not moved since the rollout. Its own mean and log-probability are then
    the old ones, which keeps the ratio at exactly 1 whatever the precision of the rollout.
    """
    needs, sigmas = method.needs, trajectories.sigmas
    gated_rows = int(gate[rows.image].sum())
    data_count = 0 if rows.data_rows is None else len(rows.data_rows)
    totals: dict[str, float] = {}
    for part in torch.arange(len(rows.image)).split(micro_batch):
        image, step = rows.image[part], rows.step[part]
        x, x_next = trajectories.latents[step, image], trajectories.latents[step + 1, image]
        sigma, embeddings, gated = sigmas[step], prompts[image], gate[image]

        def transition(velocity, keep=slice(None), x=x, x_next=x_next, step=step):
            return STEPS[sde](
                velocity,
                x[keep],
                sigmas[step[keep]],
                sigmas[step[keep] + 1],
                sigma_second=sigmas[1],
                noise_level=noise_level,
                x_next=x_next[keep],
            )

        wanted = _referenced(needs.reference, gated)
        reference_mean = None
        if wanted.any():
            v = reference_velocity(
                model, needs.adaptive_reference, x[wanted], sigma[wanted], embeddings[wanted], empty
            )
            reference_mean = transition(v, wanted).mean

        data, mine = None, None
        if needs.data:
            mine = torch.isin(rows.data_rows, part)
            at = rows.data_rows[mine]
            x0, eps = rows.data_x0[mine], rows.data_noise[mine]
            s = sigmas[rows.step[at]]
            noised, caption = _noised(x0, eps, s), prompts[rows.image[at]]
            # Policy and data rows share one forward pass.
            joint = Prompts(
                torch.cat([embeddings.tokens, caption.tokens]), torch.cat([embeddings.pooled, caption.pooled])
            )
            velocity = model.velocity(torch.cat([x, noised]), torch.cat([sigma, s]), joint, empty)
            velocity, data_velocity = velocity[: len(part)], velocity[len(part) :]
            data = DataBatch(x0, eps, data_velocity)
        else:
            velocity = model.velocity(x, sigma, embeddings, empty)

        now = transition(velocity)
        batch = Batch(
            x_next=x_next,
            mean=now.mean,
            std=now.std,
            noise_std=now.noise_std,
            log_prob=now.log_prob,
            old_mean=now.mean.detach() if on_policy else trajectories.means[step, image],
            old_log_prob=now.log_prob.detach() if on_policy else trajectories.log_probs[step, image],
            advantages=advantages[image],
            gate=gated,
            rows=len(rows.image),
            gated_rows=gated_rows,
            reference_rows=wanted if reference_mean is not None else None,
            reference_mean=reference_mean,
            data=data,
            data_rows=data_count,
        )
        _backward(method, batch, totals)
    return totals


def accumulate_forward_gradients(
    model: BaseModel,
    method: Method,
    trajectories: Trajectories,
    prompts: Prompts,
    advantages: torch.Tensor,
    gate: torch.Tensor,
    rows: Rows,
    *,
    micro_batch: int,
    empty: Prompts | None = None,
) -> dict[str, float]:
    """As ``accumulate_gradients`` for methods that train on noised final latents."""
    needs = method.needs
    gated_rows = int(gate[rows.image].sum())
    totals: dict[str, float] = {}
    for part in torch.arange(len(rows.image)).split(micro_batch):
        image, t, noise = rows.image[part], trajectories.sigmas[rows.step[part]], rows.noise[part]
        x0, embeddings, gated = trajectories.latents[-1, image], prompts[image], gate[image]
        x_t = _noised(x0, noise, t)
        with torch.no_grad(), model.using(OLD):
            old_velocity = model.velocity(x_t, t, embeddings, empty)
        wanted, reference = _referenced(needs.reference, gated), None
        if wanted.any():
            reference = reference_velocity(
                model, needs.adaptive_reference, x_t[wanted], t[wanted], embeddings[wanted], empty
            )
        batch = ForwardBatch(
            velocity=model.velocity(x_t, t, embeddings, empty),
            old_velocity=old_velocity,
            x0=x0,
            noise=noise,
            t=t,
            advantages=advantages[image],
            gate=gated,
            rows=len(rows.image),
            gated_rows=gated_rows,
            reference_rows=wanted if reference is not None else None,
            reference_velocity=reference,
        )
        _backward(method, batch, totals)
    return totals


def accumulate_data_gradients(
    model: BaseModel,
    method: Method,
    prompts: Prompts,
    x0: torch.Tensor,
    noise: torch.Tensor,
    sigma: torch.Tensor,
    *,
    micro_batch: int,
    empty: Prompts | None = None,
) -> dict[str, float]:
    """As ``accumulate_gradients`` for methods that train on data alone: M rows, one prompt each."""
    totals: dict[str, float] = {}
    for part in torch.arange(len(x0)).split(micro_batch):
        noised = _noised(x0[part], noise[part], sigma[part])
        velocity = model.velocity(noised, sigma[part], prompts[part], empty)
        batch = SupervisedBatch(DataBatch(x0[part], noise[part], velocity), len(x0))
        _backward(method, batch, totals)
    return totals
