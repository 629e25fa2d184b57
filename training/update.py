"""One gradient step on rows of a rollout: micro-batches, reference only where gated, data only for DDRL."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from base_models.base import POLICY, BaseModel, Prompts
from methods import Batch, DataBatch, ForwardBatch, Method, SupervisedBatch
from methods.sde import STEPS
from training.rollout import Trajectories, distinct

REFERENCE = "reference"
Inputs = tuple[torch.Tensor, torch.Tensor, Prompts]  # x, sigma and prompts of a forward pass
OLD = "old"  # the policy that makes the images of a forward-process method


@dataclass
class Experience:
    """What an update reads of a rollout: n images of this process.

    ``prompts`` are those of the whole training set, ``prompt_of`` (n,) the one of each image;
    ``advantages`` and ``gate`` (n,) are the method's.
    """

    trajectories: Trajectories
    prompts: Prompts
    prompt_of: torch.Tensor
    advantages: torch.Tensor
    gate: torch.Tensor

    def embeddings(self, image: torch.Tensor) -> Prompts:
        return self.prompts[self.prompt_of[image]]

    def state(self, image: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        """A number (R,) for each pair: equal ones have the same prompt, latent and sigma."""
        source = self.trajectories.source
        return source[step, image] + step * source.shape[1]


@dataclass
class Rows:
    """R (image, step) pairs of one gradient step, and where data rows stand beside them.

    ``image`` and ``step`` are long (R,); ``data_rows`` are positions in 0..R-1 that carry a data latent
    (the same prompt and sigma), ``data_x0`` and ``data_noise`` (M, ...) their values. ``noise`` (R, ...)
    noises the final latents of a forward-process method. ``total``, ``gated_total`` and ``data_total``
    count the rows of the whole gradient step, of which other processes may hold a part.
    """

    image: torch.Tensor
    step: torch.Tensor
    total: int
    gated_total: int
    data_total: int = 0
    data_rows: torch.Tensor | None = None
    data_x0: torch.Tensor | None = None
    data_noise: torch.Tensor | None = None
    noise: torch.Tensor | None = None

    def share(self, images: slice) -> Rows:
        """The rows of these images, which are numbered from 0 then."""
        mine = (self.image >= images.start) & (self.image < images.stop)
        part = replace(self, image=self.image[mine] - images.start, step=self.step[mine])
        if self.noise is not None:
            part.noise = self.noise[mine]
        if self.data_rows is not None:
            kept = mine[self.data_rows]
            part.data_rows = (mine.cumsum(0) - 1)[self.data_rows[kept]]
            part.data_x0 = self.data_x0[kept]
            part.data_noise = None if self.data_noise is None else self.data_noise[kept]
        return part


def rows_of(images: torch.Tensor, steps: torch.Tensor, gate: torch.Tensor) -> Rows:
    """All pairs of the images and the trained steps, step by step; ``gate`` (N,) of all images."""
    image = images.repeat(len(steps))
    return Rows(image, steps.repeat_interleave(len(images)), len(image), int(gate[image].sum()))


def _referenced(reference: str, gated: torch.Tensor) -> torch.Tensor:
    return gated if reference == "gated" else torch.full_like(gated, reference == "all")


def _noised(x0: torch.Tensor, noise: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """(1 - sigma) x0 + sigma noise, row by row; ``sigma`` (M,)."""
    column = sigma.reshape(-1, *[1] * (x0.dim() - 1))
    return (1 - column) * x0 + column * noise


def _backward(method: Method, batch: Batch | ForwardBatch | SupervisedBatch) -> dict[str, float]:
    """Gradients of one micro-batch. Returns its terms."""
    loss, terms = method.loss(batch)
    loss.backward()
    return terms


def add_terms(parts: list[dict[str, float]]) -> dict[str, float]:
    """Logged terms of several parts of one gradient step, added up by name."""
    totals: dict[str, float] = {}
    for terms in parts:
        for key, value in terms.items():
            totals[key] = totals.get(key, 0.0) + value
    return totals


def micro_batches(states: int, data: int, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Numbers of states and of data rows, in as many equal parts as ``size`` of either allows."""
    count = max(1, min(states, math.ceil(max(states, data) / size)))
    return zip(torch.arange(states).tensor_split(count), torch.arange(data).tensor_split(count), strict=True)


def _joined(a: Inputs, b: Inputs) -> Inputs:
    tokens, pooled = torch.cat([a[2].tokens, b[2].tokens]), torch.cat([a[2].pooled, b[2].pooled])
    return torch.cat([a[0], b[0]]), torch.cat([a[1], b[1]]), Prompts(tokens, pooled)


def policy_velocity(
    model: BaseModel, x: torch.Tensor, sigma: torch.Tensor, prompts: Prompts, empty: Prompts | None
) -> torch.Tensor:
    with model.using(POLICY):
        return model.velocity(x, sigma, prompts, empty)


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


def reference_velocities(
    model: BaseModel,
    adaptive: bool,
    experience: Experience,
    image: torch.Tensor,
    step: torch.Tensor,
    micro_batch: int,
    empty: Prompts | None,
) -> torch.Tensor:
    """The reference's velocities at these (image, step) pairs, R each; equal ones are computed once."""
    first, inverse = distinct(experience.state(image, step))
    parts = []
    for rows in first.split(micro_batch):
        x = experience.trajectories.latents[step[rows], image[rows]]
        sigma, prompts = experience.trajectories.sigmas[step[rows]], experience.embeddings(image[rows])
        parts.append(reference_velocity(model, adaptive, x, sigma, prompts, empty))
    return torch.cat(parts)[inverse]


def accumulate_gradients(
    model: BaseModel,
    method: Method,
    experience: Experience,
    rows: Rows,
    *,
    sde: str,
    noise_level: float,
    micro_batch: int,
    empty: Prompts | None = None,
    on_policy: bool = False,
) -> dict[str, float]:
    """Backward over all rows; gradients add up to those of one big batch. Returns the summed terms.

    A forward pass takes ``micro_batch`` different (prompt, latent, step) states, and as many data rows at
    most; a state that several rows share, as all of a group's do before noise parts them, is computed once.

    ``on_policy``: the policy has not moved since the rollout. Its own mean and log-probability are then
    the old ones, which keeps the ratio at exactly 1 whatever the precision of the rollout.
    """
    needs, trajectories = method.needs, experience.trajectories
    sigmas = trajectories.sigmas
    wanted = _referenced(needs.reference, experience.gate[rows.image]).cpu()
    if wanted.any():
        pairs = rows.image[wanted], rows.step[wanted]
        reference = reference_velocities(
            model, needs.adaptive_reference, experience, *pairs, micro_batch, empty
        )
        number = wanted.cumsum(0) - 1  # of a wanted row among the wanted
    states, state_of = distinct(experience.state(rows.image, rows.step))
    data_count = len(rows.data_rows) if needs.data else 0
    terms = []
    for chosen, data_part in micro_batches(len(states), data_count, micro_batch):
        part = torch.isin(state_of, chosen).nonzero().squeeze(1)
        image, step, asked = rows.image[part], rows.step[part], wanted[part]
        x, x_next = trajectories.latents[step, image], trajectories.latents[step + 1, image]
        sigma, sigma_next = sigmas[step], sigmas[step + 1]

        def transition(velocity, keep=slice(None), x=x, x_next=x_next, now=sigma, later=sigma_next):
            return STEPS[sde](
                velocity,
                x[keep],
                now[keep],
                later[keep],
                sigma_second=sigmas[1],
                noise_level=noise_level,
                x_next=x_next[keep],
            )

        reference_mean = None
        if asked.any():
            reference_mean = transition(reference[number[part][asked]], asked).mean

        image_of, step_of = rows.image[states[chosen]], rows.step[states[chosen]]
        inputs = trajectories.latents[step_of, image_of], sigmas[step_of], experience.embeddings(image_of)
        data = None
        if needs.data:
            at = rows.data_rows[data_part]
            x0, eps, s = rows.data_x0[data_part], rows.data_noise[data_part], sigmas[rows.step[at]]
            noised = _noised(x0, eps, s), s, experience.embeddings(rows.image[at])
            # Policy and data rows share one forward pass.
            velocity = policy_velocity(model, *_joined(inputs, noised), empty)
            velocity, data_velocity = velocity.tensor_split([len(chosen)])
            data = DataBatch(x0, eps, data_velocity)
        else:
            velocity = policy_velocity(model, *inputs, empty)

        now = transition(velocity[state_of[part].unique(return_inverse=True)[1]])
        batch = Batch(
            x_next=x_next,
            mean=now.mean,
            std=now.std,
            noise_std=now.noise_std,
            log_prob=now.log_prob,
            old_mean=now.mean.detach() if on_policy else trajectories.means[step, image],
            old_log_prob=now.log_prob.detach() if on_policy else trajectories.log_probs[step, image],
            advantages=experience.advantages[image],
            gate=experience.gate[image],
            rows=rows.total,
            gated_rows=rows.gated_total,
            reference_rows=None if reference_mean is None else asked.to(x.device),
            reference_mean=reference_mean,
            data=data,
            data_rows=rows.data_total,
        )
        terms.append(_backward(method, batch))
    return add_terms(terms)


def accumulate_forward_gradients(
    model: BaseModel,
    method: Method,
    experience: Experience,
    rows: Rows,
    *,
    micro_batch: int,
    empty: Prompts | None = None,
) -> dict[str, float]:
    """As ``accumulate_gradients`` for methods that train on noised final latents."""
    needs, trajectories = method.needs, experience.trajectories
    terms = []
    for part in torch.arange(len(rows.image)).split(micro_batch):
        image, t, noise = rows.image[part], trajectories.sigmas[rows.step[part]], rows.noise[part]
        x0, embeddings = trajectories.latents[-1, image], experience.embeddings(image)
        gated = experience.gate[image]
        x_t = _noised(x0, noise, t)
        with torch.no_grad(), model.using(OLD):
            old_velocity = model.velocity(x_t, t, embeddings, empty)
        wanted, reference = _referenced(needs.reference, gated), None
        if wanted.any():
            reference = reference_velocity(
                model, needs.adaptive_reference, x_t[wanted], t[wanted], embeddings[wanted], empty
            )
        batch = ForwardBatch(
            velocity=policy_velocity(model, x_t, t, embeddings, empty),
            old_velocity=old_velocity,
            x0=x0,
            noise=noise,
            t=t,
            advantages=experience.advantages[image],
            gate=gated,
            rows=rows.total,
            gated_rows=rows.gated_total,
            reference_rows=wanted if reference is not None else None,
            reference_velocity=reference,
        )
        terms.append(_backward(method, batch))
    return add_terms(terms)


def accumulate_data_gradients(
    model: BaseModel,
    method: Method,
    prompts: Prompts,
    x0: torch.Tensor,
    noise: torch.Tensor,
    sigma: torch.Tensor,
    *,
    data_total: int,
    micro_batch: int,
    empty: Prompts | None = None,
) -> dict[str, float]:
    """As ``accumulate_gradients`` for methods that train on data alone: M rows, one prompt each, of the
    gradient step's ``data_total``."""
    terms = []
    for part in torch.arange(len(x0)).split(micro_batch):
        noised = _noised(x0[part], noise[part], sigma[part])
        velocity = policy_velocity(model, noised, sigma[part], prompts[part], empty)
        batch = SupervisedBatch(DataBatch(x0[part], noise[part], velocity), data_total)
        terms.append(_backward(method, batch))
    return add_terms(terms)
