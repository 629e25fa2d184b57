"""Batches of every process from its own builder, on a velocity field of one parameter."""

from __future__ import annotations

import torch

from methods import Method, Prepared, Rollout
from processes import data, forward, reverse
from processes.base import Inputs, noised
from processes.rows import DataRows, ImageExperience, Rows
from processes.sampling import Trajectories, Transition

STEPS, SHAPE = 3, (2, 4, 4)


class ToyPolicies:
    """v = parameter x; the parameters of reference, old policy and anchor are 0.9, 1 and 0.95."""

    def __init__(self, parameter: torch.Tensor):
        self.parameter = parameter

    guided = False

    def policy(self, at: Inputs) -> torch.Tensor:
        return self.parameter * at.x

    conditional = policy

    def reference(self, at: Inputs) -> torch.Tensor:
        return 0.9 * at.x

    def old(self, at: Inputs) -> torch.Tensor:
        return at.x

    def anchor(self, at: Inputs) -> torch.Tensor:
        return 0.95 * at.x


def make_experience(prepared: Prepared, groups: torch.Tensor, rng: torch.Generator) -> ImageExperience:
    """As many images as ``prepared`` has, of the prompts ``groups``; latents do not depend on any policy."""
    images = torch.arange(len(prepared.gate))
    transition = Transition("flow_sde", 0.7, torch.linspace(1, 0, STEPS + 1))
    shape = (STEPS, len(images), *SHAPE)
    trajectories = Trajectories(
        torch.randn((STEPS + 1, *shape[1:]), generator=rng),
        transition.sigmas,
        images.expand(STEPS, -1),
        transition,
        torch.randn(shape[:2], generator=rng),
    )
    return ImageExperience(
        1, trajectories=trajectories, prepared=prepared, prompt_of=groups, share=slice(0, len(images))
    )


def make_batches(method: Method, parameter: torch.Tensor, rollout: Rollout, micro_batch: int = 64) -> list:
    """Batches of one gradient step, on policy, by what the method needs."""
    needs, rng = method.config.needs(), torch.Generator().manual_seed(1)
    policies = ToyPolicies(parameter)
    if needs.process == "data":
        x0, noise = (torch.randn((6, *SHAPE), generator=rng) for _ in range(2))
        sigma = torch.rand(6, generator=rng)
        rows = data.DataRows(x0, noise, Inputs(noised(x0, noise, sigma), sigma, None), 6)
        return list(data.batches(policies, rows, micro_batch))
    experience = make_experience(method.prepare(rollout), rollout.groups, rng)
    rows = Rows.of(experience, torch.arange(len(rollout.rewards)), torch.tensor([0, 1]))
    if needs.process == "forward":
        rows.noise = torch.randn((len(rows), *SHAPE), generator=rng)
        return list(forward.batches(policies, needs, rows, micro_batch))
    if needs.data:
        rows.data = DataRows(
            experience,
            rows.image[::2],
            rows.step[::2],
            torch.randn((len(rows) // 2, *SHAPE), generator=rng),
            None,
        )
        rows.data_total = len(rows.data)
    return list(reverse.batches(policies, needs, rows, micro_batch, on_policy=True))
