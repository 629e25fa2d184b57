"""The contract of a reward: images and prompts in, one float per image out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch


class RewardError(RuntimeError):
    """A reward returned something that must not enter training."""


class Reward(ABC):
    """One plug-in file ``rewards/<name>.py`` holds one subclass whose ``name`` is the file's name.

    Class attributes say what a reader of a score must know:

    - ``name``: the name in configs and score tables.
    - ``scale``: range and unit of the score.
    - ``licence``: of the weights and of the code they come from.
    - ``weights``: files under ``resources/`` that must match ``resources/SHA256SUMS``; empty for rules.
    - ``expected_base``: what the untrained base model scores, or None where nobody measured it.
    """

    name: ClassVar[str]
    scale: ClassVar[str]
    licence: ClassVar[str]
    weights: ClassVar[tuple[str, ...]] = ()
    expected_base: ClassVar[float | None] = None

    @abstractmethod
    def score(self, images: torch.Tensor, prompts: list[str], metadata: list[dict]) -> torch.Tensor:
        """Score images.

        Args:
            images: float (N, 3, H, W) in [0, 1].
            prompts: N captions.
            metadata: N prompt dicts in GenEval's schema (see ``scenes.prompts``).

        Returns:
            float32 (N,).
        """

    @classmethod  # noqa: B027
    def check_prompts(cls, metadata: list[dict]) -> None:
        """Raise ``ValueError`` for a prompt this reward cannot score. Called before any job starts."""

    def __call__(self, images: torch.Tensor, prompts: list[str], metadata: list[dict]) -> torch.Tensor:
        """Score and check: raises ``RewardError`` naming the reward and the prompt."""
        with torch.inference_mode():
            scores = torch.as_tensor(self.score(images, prompts, metadata), dtype=torch.float32)
        if scores.shape != (len(images),):
            raise RewardError(
                f"reward {self.name!r} returned shape {tuple(scores.shape)} for {len(images)} images "
                f"(first prompt: {prompts[0]!r})"
            )
        if not torch.isfinite(scores).all():
            bad = int((~torch.isfinite(scores)).nonzero()[0])
            raise RewardError(f"reward {self.name!r} returned {scores[bad]} for prompt {prompts[bad]!r}")
        return scores
