"""What the pre-training loop asks of a tiny pipeline, whatever its class."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from diffusers import AutoencoderKL, DiffusionPipeline


@dataclass(frozen=True)
class Stage:
    """One pass of flow-matching pre-training on its own scenes; ``stop`` ends it before its schedule does."""

    shares: dict[str, float]
    scenes: int
    data_seed: int
    steps: int
    learning_rate: float
    seed: int
    stop: int | None = None


class Recipe(ABC):
    """One tiny pipeline: how it is built, what of it is trained and in which stages."""

    name: ClassVar[str]
    stages: ClassVar[tuple[Stage, ...]]
    batch: ClassVar[int] = 128
    half_precision_files: ClassVar[bool] = False

    def __init__(self, captions: list[str], vae: AutoencoderKL):
        self.pipeline = self.build(captions, vae)

    @abstractmethod
    def build(self, captions: list[str], vae: AutoencoderKL) -> DiffusionPipeline:
        """Untrained text encoders and transformer around a trained autoencoder."""

    @abstractmethod
    def trained(self) -> list[torch.nn.Module]:
        """The transformer and the text encoders."""

    @abstractmethod
    def token_ids(self, captions: list[str]) -> tuple[torch.Tensor, ...]:
        """Long (N, L) per tokenizer."""

    @abstractmethod
    def velocity(self, x: torch.Tensor, sigma: torch.Tensor, ids: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """What the pipeline computes from tokens, with gradients: (B, C, H, W) at sigma (B,)."""
