"""Rows: the (image, denoising step) pairs that a gradient step trains on, and velocities at their states."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from base_models.base import Embeddings
from methods import DataBatch, Prepared
from processes.base import Experience, Inputs, noised
from processes.sampling import Trajectories, distinct

Index = torch.Tensor | slice


@dataclass(kw_only=True)
class ImageExperience(Experience):
    """The images of one iteration: ``prepared`` (N) for all ranks, ``trajectories`` (n) for this one's.

    ``share`` tells which of all images these are, ``prompt_of`` (N,) the prompt of each among the embedded
    prompts of the whole training set, ``embedded`` (None for a model without).
    """

    trajectories: Trajectories
    prepared: Prepared
    prompt_of: torch.Tensor
    share: slice
    embedded: Embeddings | None = None

    @property
    def device(self) -> torch.device:
        return self.trajectories.latents.device

    def advantages(self, image: torch.Tensor) -> torch.Tensor:
        return self.prepared.advantages.float()[self.share].to(self.device)[image]

    def gate(self, image: torch.Tensor) -> torch.Tensor:
        return self.prepared.gate[self.share].to(self.device)[image]

    def groups(self, image: torch.Tensor) -> torch.Tensor:
        return self.prompt_of[self.share][image]

    def embeddings(self, image: torch.Tensor) -> Embeddings | None:
        return None if self.embedded is None else self.embedded[self.groups(image)]


@dataclass
class DataRows:
    """M data latents, each beside an (image, step) pair whose prompt and sigma it has.

    ``noise`` None: the image's initial noise.
    """

    experience: ImageExperience
    image: torch.Tensor
    step: torch.Tensor
    x0: torch.Tensor
    noise: torch.Tensor | None

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, index: Index) -> DataRows:
        noise = None if self.noise is None else self.noise[index]
        return replace(self, image=self.image[index], step=self.step[index], x0=self.x0[index], noise=noise)

    @property
    def eps(self) -> torch.Tensor:
        return self.experience.trajectories.latents[0, self.image] if self.noise is None else self.noise

    def inputs(self) -> Inputs:
        sigma = self.experience.trajectories.sigmas[self.step]
        return Inputs(noised(self.x0, self.eps, sigma), sigma, self.experience.embeddings(self.image))

    def batch(self, velocity: torch.Tensor) -> DataBatch:
        return DataBatch(self.x0, self.eps, velocity)


@dataclass
class Rows:
    """R (image, step) pairs of one gradient step; ``image`` and ``step`` are long (R,), on the CPU.

    ``total``, ``gated_total`` and ``data_total`` count what the whole gradient step has, of which other ranks
    may hold a part. ``noise`` (R, ...): what a forward process noises final latents with. ``old_velocity``
    (R, ...): what the policy that rolled out has there, where it is no longer the policy.
    """

    experience: ImageExperience
    image: torch.Tensor
    step: torch.Tensor
    total: int
    gated_total: int
    noise: torch.Tensor | None = None
    old_velocity: torch.Tensor | None = None
    data: DataRows | None = None
    data_total: int = 0

    @classmethod
    def of(
        cls, experience: ImageExperience, images: torch.Tensor, steps: torch.Tensor, parts: int = 1
    ) -> Rows:
        """All pairs of these images, numbered over all ranks, and steps, step by step; of the images, those
        that the method trains on.

        ``parts``: the gradient step consists of so many, equally large.
        """
        trained = experience.prepared.trained
        if trained is not None:
            images = images[trained[images]]
        image = images.repeat(len(steps))
        total, gated = len(image) * parts, int(experience.prepared.gate[image].sum()) * parts
        return cls(experience, image, steps.repeat_interleave(len(images)), total, gated)

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, index: Index) -> Rows:
        of_rows = {
            "image": self.image,
            "step": self.step,
            "noise": self.noise,
            "old_velocity": self.old_velocity,
        }
        of_rows = {name: value if value is None else value[index] for name, value in of_rows.items()}
        return replace(self, **of_rows, data=None)

    def of_this_rank(self) -> Rows:
        """Those of the experience's share of the images, which are numbered from 0 then."""
        share = self.experience.share

        def own(rows):
            rows = rows[(rows.image >= share.start) & (rows.image < share.stop)]
            return replace(rows, image=rows.image - share.start)

        return replace(own(self), data=None if self.data is None else own(self.data))

    @property
    def state(self) -> torch.Tensor:
        """A number (R,) for each pair: equal ones have one prompt, latent and step."""
        source = self.experience.trajectories.source
        return source[self.step, self.image] + self.step * source.shape[1]

    def inputs(self) -> Inputs:
        """What a velocity field is given at the pairs' states."""
        t = self.experience.trajectories
        return Inputs(
            t.latents[self.step, self.image], t.sigmas[self.step], self.experience.embeddings(self.image)
        )

    @property
    def advantages(self) -> torch.Tensor:
        return self.experience.advantages(self.image)

    @property
    def gate(self) -> torch.Tensor:
        return self.experience.gate(self.image)

    def referenced(self, reference: str) -> torch.Tensor:
        """Which pairs (R,) need the reference, by ``Needs.reference``."""
        return self.gate if reference == "gated" else torch.full_like(self.gate, reference == "all")

    def by_state(self, parts: int) -> list[torch.Tensor]:
        """Indices of the pairs, in ``parts`` of almost equally many states, none of which is split."""
        first, state_of = distinct(self.state)
        return [
            ((state_of >= states.start) & (state_of < states.stop)).nonzero().squeeze(1)
            for states in even_parts(len(first), parts)
        ]

    def compared(self, together: str) -> torch.Tensor:
        """A number (R,) from 0 for each pair: equal ones must not be parted, by ``Needs.together``."""
        key = self.step
        if together == "prompt":
            groups = self.experience.groups(self.image)
            key = key * (groups.max() + 1) + groups
        return key.unique(return_inverse=True)[1]

    def by_comparison(self, together: str, size: int) -> list[torch.Tensor]:
        """Indices of the pairs, in parts of at most ``size`` or of what must not be parted."""
        if together == "none":
            return list(torch.arange(len(self)).split(size))
        number, parts, room = self.compared(together), [], 0
        for compared, count in enumerate(number.bincount().tolist()):
            if count > room:
                parts.append([])
                room = size
            parts[-1].append(compared)
            room -= count
        return [torch.isin(number, torch.tensor(part)).nonzero().squeeze(1) for part in parts]

    def states(self) -> int:
        """How many different states the pairs have."""
        return len(self.state.unique())


def even_parts(total: int, count: int) -> list[slice]:
    """``count`` almost equal parts of ``total`` rows, in order."""
    edges = [total * i // count for i in range(count + 1)]
    return [slice(*edge) for edge in itertools.pairwise(edges)]


def micro_batches(rows: int, size: int) -> int:
    """How many micro-batches of at most ``size`` rows there are; at least one."""
    return max(1, math.ceil(rows / size))


def shared_velocity(
    velocity: Callable[[Inputs], torch.Tensor], rows: Rows, data: DataRows | None = None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """``velocity`` at ``rows`` (R, ...), computed once for the rows of one state, as those of a whole group
    are before noise parts its images; and at ``data`` (M, ...), in the same forward pass."""
    first, state_of = distinct(rows.state)
    states = rows[first].inputs()
    if data is None:
        return (velocity(states) if len(first) else states.x)[state_of], None
    of_states, of_data = velocity(states.followed_by(data.inputs())).tensor_split([len(first)])
    return of_states[state_of], of_data


def kept_velocity(rows: Rows) -> torch.Tensor:
    """What the rollout's graph has at ``rows`` (R, ...); of the rows of one state, the first one's."""
    first, state_of = distinct(rows.state)
    states = rows[first]
    return rows.experience.trajectories.velocities[states.step, states.image][state_of]
