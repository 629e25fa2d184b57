"""The contract of an encoder: images in, one feature vector per image out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch

from core.media import as_frames, by_clip, medium_of
from rewards.base import RewardError
from rewards.published.hub import HubFiles


class Features(ABC):
    """One file ``rewards/features/<name>.py`` holds one subclass whose ``name`` is the file's name.

    The class attributes mean what they mean in ``rewards.base.Reward``; scale and expected value are those
    of the diversity that evaluation takes from the features.
    """

    name: ClassVar[str]
    role: ClassVar[str] = "diversity"
    scale: ClassVar[str] = "0 to 2: mean cosine distance of two images of a prompt (tables show it times 100)"
    licence: ClassVar[str]
    weights: ClassVar[tuple[str, ...]] = ()
    hub: ClassVar[tuple[HubFiles, ...]] = ()
    environment: ClassVar[str | None] = None
    expected_base: ClassVar[Mapping[str, float]] = {}
    expected_source: ClassVar[str] = ""

    @abstractmethod
    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """Images float (N, 3, H, W) in [0, 1] -> float32 (N, D), not normalised."""

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Embed and check: raises ``RewardError`` naming the encoder. A clip has the mean over its frames."""
        with torch.inference_mode():
            of_frames = medium_of(images) == "clip"
            features = self.embed(*as_frames(images)) if of_frames else self.embed(images)
            features = by_clip(features, images).mean(1) if of_frames else features
        if features.ndim != 2 or len(features) != len(images) or not torch.isfinite(features).all():
            raise RewardError(
                f"features {self.name!r} of {len(images)} images have shape {tuple(features.shape)}"
                " or are not finite"
            )
        return features.float()
