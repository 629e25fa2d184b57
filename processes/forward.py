"""The forward process: final latents of an ODE rollout under the old policy, noised afresh for the loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from base_models.base import POLICY
from core.seeding import generator
from methods import ForwardBatch, Needs
from processes.base import ANCHOR, OLD, Inputs, Policies, noised
from processes.collect import ImageProcess
from processes.rows import ImageExperience, Rows
from processes.sampling import Trajectories, noise, sample_ode


def batches(
    policies: Policies, needs: Needs, rows: Rows, micro_batch: int, on_policy: bool = False
) -> Iterator[ForwardBatch]:
    """All rows of a gradient step, at most ``micro_batch`` in a batch, unless more must stand together."""
    for part in rows.by_comparison(needs.together, micro_batch):
        yield make_batch(policies, needs, rows[part], on_policy)


def make_batch(policies: Policies, needs: Needs, rows: Rows, on_policy: bool = False) -> ForwardBatch:
    """The batch of ``rows``; ``on_policy``: the policy is the old one, whose velocity is its own then."""
    t = rows.experience.trajectories
    x0, sigma = t.latents[-1, rows.image], t.sigmas[rows.step]
    at = Inputs(noised(x0, rows.noise, sigma), sigma, rows.experience.embeddings(rows.image))
    old_velocity = reference = None
    if needs.old != "none" and not on_policy:
        old_velocity = policies.old(at)
    wanted = rows.referenced(needs.reference)
    if wanted.any():
        reference = policies.reference(at.of(wanted))
    velocity = policies.policy(at)
    return ForwardBatch(
        velocity=velocity,
        old_velocity=velocity.detach() if on_policy else old_velocity,
        x0=x0,
        noise=rows.noise,
        t=sigma,
        advantages=rows.advantages,
        gate=rows.gate,
        groups=rows.experience.groups(rows.image),
        rows=rows.total,
        gated_rows=rows.gated_total,
        reference_rows=wanted if reference is not None else None,
        reference_velocity=reference,
        anchor_velocity=policies.anchor(at) if needs.anchor else None,
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
        unit = 1
        if self.needs.together != "none":  # whole groups stay in one gradient step, and on one rank
            unit, experience = c.group_size, self.shared(experience)
        units = torch.arange(len(experience.prepared.gate)).unflatten(0, (-1, unit))
        order = units[torch.randperm(len(units), generator=rng)]
        for number, images in enumerate(order.chunk(c.gradient_steps)):
            steps = self.draw_steps(c.forward_steps or c.trained_steps, rng)
            rows = Rows.of(experience, images.flatten(), steps)
            rows.noise = self.draw_fresh_noise(rows, rng)
            on_policy = self.needs.old == "policy" and number == 0
            yield batches(self.policies, self.needs, self.own(rows), c.micro_batch, on_policy)

    def shared(self, experience: ImageExperience) -> ImageExperience:
        """The same with the final latents of every rank."""
        latents = self.ranks.gather(experience.trajectories.latents[-1]).to(self.model.device)
        trajectories = replace(experience.trajectories, latents=latents[None])
        return replace(experience, trajectories=trajectories, share=slice(0, len(latents)))

    def own(self, rows: Rows) -> Rows:
        """This rank's rows: those of its images, or of every so manieth set that must stand together."""
        if self.needs.together == "none":
            return rows.of_this_rank()
        return rows[rows.compared(self.needs.together) % self.ranks.count == self.ranks.index]

    def draw_fresh_noise(self, rows: Rows, rng: torch.Generator) -> torch.Tensor:
        """(R, ...) for the rows of all ranks."""
        shape, device = self.model.latent_shape, self.model.device
        if not self.needs.shared_noise:
            return noise((rows.total, *shape), rng, device)
        groups = rows.experience.prompt_of[rows.image]
        _, number = torch.stack([rows.step, groups]).unique(dim=1, return_inverse=True)
        return noise((int(number.max()) + 1, *shape), rng, device)[number]

    def follow(self, updates: int) -> None:
        """The old policy, and the anchor, move towards the policy."""
        self.model.copy_adapter(POLICY, OLD, keep=self.method.old_policy_decay(updates))
        if self.needs.anchor:
            self.model.copy_adapter(POLICY, ANCHOR, keep=self.method.anchor_decay(updates))
