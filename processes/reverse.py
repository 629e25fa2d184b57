"""The reverse process: the denoising steps of a stochastic rollout, each a Gaussian action of the policy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from base_models.base import POLICY
from core.seeding import generator
from methods import Batch, DataBatch, Needs
from processes.base import Policies
from processes.collect import ImageProcess
from processes.rows import (
    DataRows,
    ImageExperience,
    Rows,
    even_parts,
    kept_velocity,
    micro_batches,
    shared_velocity,
)
from processes.sampling import Trajectories, Transition, noise, sample_trajectories


def make_batch(
    rows: Rows,
    velocity: torch.Tensor,
    wanted: torch.Tensor,
    reference: torch.Tensor | None,
    data: DataBatch | None = None,
    on_policy: bool = False,
) -> Batch:
    """The batch of ``rows`` where the policy has ``velocity`` (R, ...).

    Args:
        wanted: bool (R,), the rows that have their velocity of the reference in ``reference`` (R, ...).
        on_policy: the policy has not moved since the rollout. Its own mean and log-probability are then the
            old ones, which keeps the ratio at exactly 1 whatever the precision of the rollout. Otherwise
            ``rows`` must have their ``old_velocity``.
    """
    t, step, image = rows.experience.trajectories, rows.step, rows.image
    now, referenced = t.again(velocity, step, image), bool(wanted.any())
    old = now if on_policy else t.again(rows.old_velocity, step, image)
    return Batch(
        x_next=t.latents[step + 1, image],
        mean=now.mean,
        std=now.std,
        noise_std=now.noise_std,
        log_prob=now.log_prob,
        old_mean=old.mean.detach(),
        old_log_prob=old.log_prob.detach(),
        advantages=rows.advantages,
        gate=rows.gate,
        step=step,
        rows=rows.total,
        gated_rows=rows.gated_total,
        reference_rows=wanted.to(velocity.device) if referenced else None,
        reference_mean=t.again(reference[wanted], step[wanted], image[wanted]).mean if referenced else None,
        data=data,
        data_rows=rows.data_total,
    )


def batches(
    policies: Policies, needs: Needs, rows: Rows, micro_batch: int, on_policy: bool = False
) -> Iterator[Batch]:
    """All rows of a gradient step; a forward pass takes at most ``micro_batch`` states and as many data rows.

    Where the rollout's graph was kept and the policy has not moved, it stands for a forward pass. A rank
    without rows has no batch.
    """
    if not len(rows) and rows.data is None:
        return
    wanted = rows.referenced(needs.reference).cpu()
    reference = reference_velocities(policies, rows, wanted, micro_batch) if wanted.any() else None
    parts = forward_passes(rows, micro_batch)
    kept = on_policy and len(parts) == 1 and rows.experience.trajectories.velocities is not None
    for part, mine in parts:
        velocity, data = policy_velocities(policies, mine, kept)
        referenced = None if reference is None else reference[part]
        yield make_batch(mine, velocity, wanted[part], referenced, data, on_policy)


def forward_passes(rows: Rows, micro_batch: int) -> list[tuple[torch.Tensor, Rows]]:
    """Indices and rows, with their share of the data, of each forward pass of a gradient step."""
    data_count = 0 if rows.data is None else len(rows.data)
    count = micro_batches(max(rows.states(), data_count), micro_batch)
    return [
        (part, replace(rows[part], data=None if rows.data is None else rows.data[data_part]))
        for part, data_part in zip(rows.by_state(count), even_parts(data_count, count), strict=True)
    ]


@torch.no_grad()
def old_velocities(policies: Policies, rows: Rows, micro_batch: int) -> torch.Tensor:
    """The policy's velocities (R, ...) as it is now, in the forward passes that the gradient step will make.

    A step after the first compares with these: those of the rollout were computed in batches of other shapes
    and, where the weights are merged, may differ by more than the policy moves.
    """
    parts = forward_passes(rows, micro_batch)
    found = torch.cat([policy_velocities(policies, mine, kept=False)[0] for _, mine in parts])
    return torch.empty_like(found).index_copy(
        0, torch.cat([part for part, _ in parts]).to(found.device), found
    )


def reference_velocities(
    policies: Policies, rows: Rows, wanted: torch.Tensor, micro_batch: int
) -> torch.Tensor:
    """The reference's velocities (R, ...) at the ``wanted`` rows, at most ``micro_batch`` states in a forward
    pass; 0 at the others."""
    asked = wanted.nonzero().squeeze(1)
    parts = rows[asked].by_state(micro_batches(rows[asked].states(), micro_batch))
    found = torch.cat([shared_velocity(policies.reference, rows[asked[part]])[0] for part in parts])
    place = asked[torch.cat(parts)].to(found.device)
    return found.new_zeros(len(rows), *found.shape[1:]).index_copy(0, place, found)


def policy_velocities(policies: Policies, rows: Rows, kept: bool) -> tuple[torch.Tensor, DataBatch | None]:
    """The policy's velocities at ``rows``, and those at their data, which have no guidance; ``kept``: those
    of the rollout's graph."""
    if rows.data is None or kept or policies.guided:
        velocity = kept_velocity(rows) if kept else shared_velocity(policies.policy, rows)[0]
        of_data = None if rows.data is None else policies.conditional(rows.data.inputs())
    else:
        velocity, of_data = shared_velocity(policies.policy, rows, rows.data)
    return velocity, None if rows.data is None else rows.data.batch(of_data)


class Reverse(ImageProcess):
    name = "reverse"
    valid = {"anchor": (False,), "together": ("none",), "shared_noise": (False,)}
    rolled_out = POLICY

    def __init__(self, *parts):
        super().__init__(*parts)
        c = self.settings
        self.trainable = range(c.sde_first, c.sde_first + c.sde_steps)
        self.transition = Transition(c.sde, c.noise_level, self.sigmas)
        self.noises = c.sde_steps

    def roll_out(self, prompt_of: torch.Tensor, initial: torch.Tensor, noises: torch.Tensor) -> Trajectories:
        c, stochastic = self.settings, self.trainable
        # The first gradient step is on policy. Where it is the only one and trains all that was drawn, it can
        # use the rollout's graph, if that is within the bounds of one forward pass of an update.
        all_rows = c.gradient_steps == 1 and c.trained_steps >= len(stochastic)
        return sample_trajectories(
            self.model,
            self.prompts.embeddings[prompt_of],
            initial,
            self.transition,
            stochastic,
            noises,
            group=prompt_of if c.same_initial_noise else None,
            empty=self.prompts.empty,
            keep_graph=all_rows and len(initial) * len(stochastic) <= c.micro_batch,
        )

    def gradient_steps(self, experience: ImageExperience) -> Iterator[Iterator[Batch]]:
        c = self.settings
        rng = generator("update", self.run.seed, experience.iteration)
        order = torch.randperm(len(experience.prepared.gate), generator=rng)
        if experience.prepared.trained is not None:
            order = order[experience.prepared.trained[order]]
        first, *later = (self.draw(experience, images, rng) for images in order.chunk(c.gradient_steps))
        for rows in later:  # before the first step moves the policy
            rows.old_velocity = old_velocities(self.policies, rows, c.micro_batch)
        yield batches(self.policies, self.needs, first, c.micro_batch, on_policy=True)
        for rows in later:
            yield batches(self.policies, self.needs, rows, c.micro_batch)

    def draw(self, experience: ImageExperience, images: torch.Tensor, rng: torch.Generator) -> Rows:
        """This rank's rows of one gradient step: ``images`` at a random subset of the stochastic steps."""
        rows = Rows.of(experience, images, self.draw_steps(self.settings.trained_steps, rng))
        if self.data is not None:
            rows.data_total = max(1, round(self.settings.data_share * rows.total))
            rows.data = self.draw_data(rows, rng)
        return rows.of_this_rank()

    def draw_data(self, rows: Rows, rng: torch.Generator) -> DataRows:
        """Data of the same prompts and sigmas beside a random subset of ``rows``, those of all ranks."""
        device = self.model.device
        beside = rows[torch.randperm(rows.total, generator=rng)[: rows.data_total].sort().values]
        x0 = self.data.draw(rows.experience.prompt_of[beside.image], rng).to(device)
        eps = noise(tuple(x0.shape), rng, device) if self.needs.data_noise == "fresh" else None
        return DataRows(rows.experience, beside.image, beside.step, x0, eps)
