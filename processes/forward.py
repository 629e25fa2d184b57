"""The forward process: final latents of an ODE rollout under the old policy, noised afresh for the loss."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from base_models.base import POLICY
from core.seeding import generator
from methods import ForwardBatch, Needs
from processes.base import OLD, Inputs, Policies, noised
from processes.collect import ImageProcess
from processes.rows import ImageExperience, Rows
from processes.sampling import Trajectories, noise, sample_ode


def batches(policies: Policies, needs: Needs, rows: Rows, micro_batch: int) -> Iterator[ForwardBatch]:
    """All rows of a gradient step, at most ``micro_batch`` in a batch."""
    for part in torch.arange(len(rows)).split(micro_batch):
        yield make_batch(policies, needs, rows[part])


def make_batch(policies: Policies, needs: Needs, rows: Rows) -> ForwardBatch:
    t = rows.experience.trajectories
    x0, sigma = t.latents[-1, rows.image], t.sigmas[rows.step]
    at = Inputs(noised(x0, rows.noise, sigma), sigma, rows.experience.embeddings(rows.image))
    old_velocity, reference = policies.old(at), None
    wanted = rows.referenced(needs.reference)
    if wanted.any():
        reference = policies.reference(at.of(wanted))
    return ForwardBatch(
        velocity=policies.policy(at),
        old_velocity=old_velocity,
        x0=x0,
        noise=rows.noise,
        t=sigma,
        advantages=rows.advantages,
        gate=rows.gate,
        rows=rows.total,
        gated_rows=rows.gated_total,
        reference_rows=wanted if reference is not None else None,
        reference_velocity=reference,
    )


class Forward(ImageProcess):
    name = "forward"
    copies = (OLD,)
    valid = {"data": (False,)}
    rolled_out = OLD

    def __init__(self, *parts):
        super().__init__(*parts)
        self.trainable = range(len(self.sigmas) - 1)

    def roll_out(self, prompt_of: torch.Tensor, initial: torch.Tensor, noises: torch.Tensor) -> Trajectories:
        """The final latents, for nothing else is of use."""
        steps, embeddings = len(self.sigmas) - 1, self.prompts.embeddings[prompt_of]
        latents = sample_ode(
            self.model, embeddings, initial, steps=steps, batch=len(initial), empty=self.prompts.empty
        )
        return Trajectories(latents[None], self.sigmas, torch.arange(len(latents)).expand(steps, -1))

    def gradient_steps(self, experience: ImageExperience) -> Iterator[Iterator[ForwardBatch]]:
        c = self.settings
        rng = generator("update", self.run.seed, experience.iteration)
        order = torch.randperm(len(experience.prepared.gate), generator=rng)
        for images in order.chunk(c.gradient_steps):
            rows = Rows.of(experience, images, self.draw_steps(c.forward_steps or c.trained_steps, rng))
            rows.noise = noise((rows.total, *self.model.latent_shape), rng, self.model.device)
            yield batches(self.policies, self.needs, rows.of_this_rank(), c.micro_batch)

    def follow(self, updates: int) -> None:
        """The old policy moves towards the policy."""
        self.model.copy_adapter(POLICY, OLD, keep=self.method.old_policy_decay(updates))
