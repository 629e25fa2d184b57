"""One gradient step on rows of a rollout: micro-batches, reference only where gated, data only for DDRL."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import torch

from base_models.base import POLICY, BaseModel, Embeddings
from methods import Batch, DataBatch, ForwardBatch, Method, SupervisedBatch
from methods.sde import STEPS
from training.rollout import Trajectories, distinct

REFERENCE = "reference"
OLD = "old"  # the policy that makes the images of a forward-process method

Inputs = tuple[torch.Tensor, torch.Tensor, Embeddings]  # x, sigma and prompts of a forward pass


@dataclass
class Experience:
    """What an update reads of a rollout: n images of this process.

    ``prompts`` are those of the whole training set, ``prompt_of`` (n,) the one of each image;
    ``advantages`` and ``gate`` (n,) are the method's.
    """

    trajectories: Trajectories
    prompts: Embeddings
    prompt_of: torch.Tensor
    advantages: torch.Tensor
    gate: torch.Tensor

    def embeddings(self, image: torch.Tensor) -> Embeddings:
        return self.prompts[self.prompt_of[image]]

    def inputs(self, image: torch.Tensor, step: torch.Tensor) -> Inputs:
        """What the transformer is given at these (image, step) pairs, R each."""
        t = self.trajectories
        return t.latents[step, image], t.sigmas[step], self.embeddings(image)

    def state(self, image: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        """A number (R,) for each pair: equal ones have the same inputs."""
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


def even_parts(total: int, count: int) -> list[slice]:
    """``count`` almost equal parts of ``total`` rows, in order."""
    edges = [total * i // count for i in range(count + 1)]
    return [slice(*edge) for edge in itertools.pairwise(edges)]


def policy_velocity(
    model: BaseModel, x: torch.Tensor, sigma: torch.Tensor, prompts: Embeddings, empty: Embeddings | None
) -> torch.Tensor:
    with model.using(POLICY):
        return model.velocity(x, sigma, prompts, empty)


@torch.no_grad()
def reference_velocity(
    model: BaseModel,
    adaptive: bool,
    x: torch.Tensor,
    sigma: torch.Tensor,
    prompts: Embeddings,
    empty: Embeddings | None,
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
    empty: Embeddings | None,
) -> torch.Tensor | None:
    """The reference's velocities (K, ...) at K states, in micro-batches; None for no states."""
    if len(image) == 0:
        return None
    found = [
        reference_velocity(model, adaptive, *experience.inputs(image[part], step[part]), empty)
        for part in even_parts(len(image), math.ceil(len(image) / micro_batch))
    ]
    return torch.cat(found)


def with_data(
    model: BaseModel,
    inputs: Inputs,
    experience: Experience,
    rows: Rows,
    part: slice,
    empty: Embeddings | None,
) -> tuple[torch.Tensor, DataBatch]:
    """The policy's velocities at ``inputs`` and at this part of the data rows, in one forward pass."""
    at, x0, eps = rows.data_rows[part], rows.data_x0[part], rows.data_noise[part]
    s, captions = experience.trajectories.sigmas[rows.step[at]], experience.embeddings(rows.image[at])
    x, sigma, prompts = inputs
    joined = (
        torch.cat([x, _noised(x0, eps, s)]),
        torch.cat([sigma, s]),
        Embeddings.join([prompts, captions]),
    )
    velocity, data_velocity = policy_velocity(model, *joined, empty).tensor_split([len(x)])
    return velocity, DataBatch(x0, eps, data_velocity)


def accumulate_gradients(
    model: BaseModel,
    method: Method,
    experience: Experience,
    rows: Rows,
    *,
    sde: str,
    noise_level: float,
    micro_batch: int,
    empty: Embeddings | None = None,
    on_policy: bool = False,
) -> dict[str, float]:
    """Backward over all rows; gradients add up to those of one big batch. Returns the summed terms.

    Rows of one state, i.e. of one prompt, latent and step, as all of a group before noise parts them, share
    a velocity, which is computed once. A forward pass takes at most ``micro_batch`` states and as many data
    rows.

    ``on_policy``: the policy has not moved since the rollout, whose graph is used where it was kept. Its own
    mean and log-probability are then the old ones, which keeps the ratio at exactly 1 whatever the precision
    of the rollout.
    """
    needs, trajectories = method.needs, experience.trajectories
    sigmas = trajectories.sigmas
    first, state_of = distinct(experience.state(rows.image, rows.step))
    image_of, step_of = rows.image[first], rows.step[first]  # of each state
    wanted = _referenced(needs.reference, experience.gate[rows.image]).cpu()
    asked = torch.zeros(len(first), dtype=torch.bool)
    asked[state_of[wanted]] = True
    slot = asked.cumsum(0) - 1  # of an asked state in ``reference``
    reference = reference_velocities(
        model, needs.adaptive_reference, experience, image_of[asked], step_of[asked], micro_batch, empty
    )
    data_count = len(rows.data_rows) if needs.data else 0
    count = max(1, math.ceil(max(len(first), data_count) / micro_batch))
    kept = trajectories.velocities if on_policy and count == 1 else None
    terms, data = [], None
    for states, data_part in zip(even_parts(len(first), count), even_parts(data_count, count), strict=True):
        part = ((state_of >= states.start) & (state_of < states.stop)).nonzero().squeeze(1)
        image, step, of = rows.image[part], rows.step[part], state_of[part] - states.start
        x, x_next = trajectories.latents[step, image], trajectories.latents[step + 1, image]
        unknown = states if kept is None else slice(0)
        inputs = experience.inputs(image_of[unknown], step_of[unknown])

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

        mine, reference_mean = wanted[part], None
        if mine.any():
            reference_mean = transition(reference[slot[state_of[part][mine]]], mine).mean

        if needs.data:
            velocity, data = with_data(model, inputs, experience, rows, data_part, empty)
        elif kept is None:
            velocity = policy_velocity(model, *inputs, empty)
        if kept is not None:
            velocity = kept[step_of[states], image_of[states]]

        now = transition(velocity[of])
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
            step=step,
            rows=rows.total,
            gated_rows=rows.gated_total,
            reference_rows=mine.to(x.device) if mine.any() else None,
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
    empty: Embeddings | None = None,
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
    prompts: Embeddings,
    x0: torch.Tensor,
    noise: torch.Tensor,
    sigma: torch.Tensor,
    *,
    data_total: int,
    micro_batch: int,
    empty: Embeddings | None = None,
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
