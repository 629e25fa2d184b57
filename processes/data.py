"""The data process: latents with captions alone; no image is generated and no reward is called."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from core.seeding import generator
from methods import DataBatch, SupervisedBatch
from processes.base import Experience, Inputs, Policies, Process, noised
from processes.sampling import noise


@dataclass(kw_only=True)
class DrawnPrompts(Experience):
    """``prompt_of`` (N,): the prompt of each data row of the iteration."""

    prompt_of: torch.Tensor


@dataclass
class DataRows:
    """M data latents ``x0`` (M, ...), noised by ``noise`` to the states ``at``, of a step's ``total``."""

    x0: torch.Tensor
    noise: torch.Tensor
    at: Inputs
    total: int


def batches(policies: Policies, rows: DataRows, micro_batch: int) -> Iterator[SupervisedBatch]:
    """All rows of a gradient step, at most ``micro_batch`` in a batch."""
    for part in torch.arange(len(rows.x0)).split(micro_batch):
        velocity = policies.conditional(rows.at.of(part))
        yield SupervisedBatch(DataBatch(rows.x0[part], rows.noise[part], velocity), rows.total)


class Data(Process):
    name = "data"
    shown = "train/data_loss"
    valid = {
        "data": (True,),
        "reference": ("none",),
        "features": (False,),
        "auxiliary": (False,),
        "anchor": (False,),
        "together": ("none",),
        "shared_noise": (False,),
    }

    def collect(self, iteration: int) -> DrawnPrompts:
        """As many rows as a rollout trains."""
        c = self.settings
        drawn = torch.tensor(self.prompts.draw(c.prompts_per_iteration, self.run.seed, iteration))
        return DrawnPrompts(
            iteration, prompt_of=drawn.repeat_interleave(c.group_size).repeat(c.trained_steps)
        )

    def gradient_steps(self, experience: DrawnPrompts) -> Iterator[Iterator[SupervisedBatch]]:
        index, device = experience.prompt_of, self.model.device
        rng = generator("update", self.run.seed, experience.iteration)
        sigmas = self.model.sigmas(self.model.config.rollout_steps)[:-1].to(device)
        mine = slice(self.ranks.index, None, self.ranks.count)
        for part in torch.randperm(len(index), generator=rng).chunk(self.settings.gradient_steps):
            x0 = self.data.draw(index[part], rng).to(device)
            eps = noise(tuple(x0.shape), rng, device)
            sigma = sigmas[torch.randint(len(sigmas), (len(part),), generator=rng)]
            embeddings = self.prompts.embeddings[index[part][mine]]
            at = Inputs(noised(x0, eps, sigma)[mine], sigma[mine], embeddings)
            rows = DataRows(x0[mine], eps[mine], at, len(part))
            yield batches(self.policies, rows, self.settings.micro_batch)
