"""The contract of a reward: images or clips and their prompts in, one float for each out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch

from core.media import Medium, as_frames, by_clip, medium_of
from rewards.published.hub import HubFiles


class RewardError(RuntimeError):
    """A reward returned something that must not enter training."""


class Reward(ABC):
    """One plug-in file ``rewards/<name>.py`` holds one subclass whose ``name`` is the file's name.

    Class attributes say what a reader of a score must know:

    - ``name``: the name in configs and score tables.
    - ``role``: what it usually is: proxy, auxiliary, unseen, gold or artefact. A task may use it otherwise;
      the role in a score table is that of the task.
    - ``medium``: what ``score`` judges; None for either. What judges images judges a clip by the mean over
      its frames.
    - ``image_size``: pixels a side that it judges alone; None for any.
    - ``scale``: range and unit of the score.
    - ``licence``: of the weights and of the code they come from.
    - ``weights``: files under ``resources/`` that must match ``resources/SHA256SUMS``; empty for rules.
    - ``hub``: files of public repositories that must lie in the hub cache.
    - ``environment``: name of ``rewards/environments/<name>.txt`` where the reward needs package versions
      that clash with the trainer's. It then scores in a process of its own; see ``rewards.service``.
    - ``expected_base``: what an untrained base model scores; its name in the config -> the score.
    - ``expected_source``: where ``expected_base`` comes from.
    """

    name: ClassVar[str]
    role: ClassVar[str] = "unseen"
    medium: ClassVar[Medium | None] = "image"
    image_size: ClassVar[int | None] = None
    scale: ClassVar[str]
    licence: ClassVar[str]
    weights: ClassVar[tuple[str, ...]] = ()
    hub: ClassVar[tuple[HubFiles, ...]] = ()
    environment: ClassVar[str | None] = None
    expected_base: ClassVar[Mapping[str, float]] = {}
    expected_source: ClassVar[str] = ""

    @abstractmethod
    def score(self, images: torch.Tensor, prompts: list[str], metadata: list[dict]) -> torch.Tensor:
        """Score media of the class's ``medium``.

        Args:
            images: float in [0, 1]: images (N, 3, H, W) or clips (N, F, 3, H, W).
            prompts: N captions.
            metadata: N prompt dicts in GenEval's schema (see ``scenes.prompts``).

        Returns:
            float32 (N,).
        """

    def components(
        self, images: torch.Tensor, prompts: list[str], metadata: list[dict]
    ) -> dict[str, torch.Tensor]:
        """What a composite score is made of: float (N,) by name, NaN where it does not apply."""
        return {}

    @classmethod
    def prompt_weights(cls, metadata: list[dict]) -> torch.Tensor:
        """Weights (P,) of P prompts, 1 in the mean, in the one number that the metric's authors state."""
        return torch.ones(len(metadata))

    @classmethod
    def made_of(cls) -> tuple[str, ...]:
        """Metrics that measure a part of the score: where it is the proxy, they are not unseen."""
        return ()

    @classmethod  # noqa: B027
    def check_prompts(cls, metadata: list[dict]) -> None:
        """Raise ``ValueError`` for a prompt this reward cannot score. Called before any job starts."""

    @classmethod
    def can_judge(cls, medium: Medium) -> bool:
        """Whether it can be asked about what a base model makes."""
        return cls.medium in (None, "image", medium)

    def parts(self, media: torch.Tensor, prompts: list[str], metadata: list[dict]) -> dict[str, torch.Tensor]:
        """``components`` of media that it can judge; of a clip, over the frames to which they apply."""
        if self.medium in (None, medium_of(media)):
            return self.components(media, prompts, metadata)
        found = self.components(*as_frames(media, prompts, metadata))
        return {name: by_clip(values, media).nanmean(1) for name, values in found.items()}

    def __call__(self, images: torch.Tensor, prompts: list[str], metadata: list[dict]) -> torch.Tensor:
        """Score media that it can judge, and check: raises ``RewardError`` naming the reward and the prompt.

        Images that are not finite are a broken policy's; as bytes they would be ordinary ones.
        """
        if not torch.isfinite(images).all():
            bad = int((~torch.isfinite(images)).flatten(1).any(1).nonzero()[0])
            raise RewardError(
                f"reward {self.name!r} was given an image that is not finite ({prompts[bad]!r})"
            )
        medium = medium_of(images)
        if not self.can_judge(medium):
            raise RewardError(f"reward {self.name!r} judges clips and was given images")
        with torch.inference_mode():
            if self.medium in (None, medium):
                scores = self.scored(images, prompts, metadata)
            else:
                scores = by_clip(self.scored(*as_frames(images, prompts, metadata)), images).mean(1)
        if not torch.isfinite(scores).all():
            bad = int((~torch.isfinite(scores)).nonzero()[0])
            raise RewardError(f"reward {self.name!r} returned {scores[bad]} for prompt {prompts[bad]!r}")
        return scores

    def scored(self, images: torch.Tensor, prompts: list[str], metadata: list[dict]) -> torch.Tensor:
        """``score`` as float32 (N,)."""
        scores = torch.as_tensor(self.score(images, prompts, metadata), dtype=torch.float32)
        if scores.shape != (len(images),):
            raise RewardError(
                f"reward {self.name!r} returned shape {tuple(scores.shape)} for {len(images)} images "
                f"(first prompt: {prompts[0]!r})"
            )
        return scores
