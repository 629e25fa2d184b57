"""What the pre-training loop asks of a tiny pipeline, whatever its class."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import ModuleType
from typing import ClassVar

import numpy as np
import torch
from diffusers import DiffusionPipeline
from torch.nn import functional as F

from pretraining.pipelines import autoencoder, data
from scenes import prompts as prompt_sets


@dataclass(frozen=True)
class Stage:
    """One pass of flow-matching pre-training on its own scenes; ``stop`` ends it before its schedule does.

    ``shares``: of the tags.
    """

    shares: dict[str, float]
    scenes: int
    data_seed: int
    steps: int
    learning_rate: float
    seed: int
    stop: int | None = None


class Recipe(ABC):
    """One tiny pipeline: how it is built, what of it is trained, on what and in which stages."""

    name: ClassVar[str]
    stages: ClassVar[tuple[Stage, ...]]
    batch: ClassVar[int] = 128
    half_precision_files: ClassVar[bool] = False
    autoencoder: ClassVar[ModuleType] = autoencoder
    autoencoder_steps: ClassVar[int] = 2500

    def __init__(self, captions: list[str], vae: torch.nn.Module):
        self.pipeline = self.build(captions, vae)

    @staticmethod
    def scenes(count: int, stage: Stage) -> tuple[np.ndarray, list[str]]:
        """Media uint8 (count, ..., H, W, 3) and their captions."""
        return data.scenes(count, stage.data_seed, stage.shares)

    @staticmethod
    def captions() -> list[str]:
        """All that a tokenizer must know."""
        return [prompt["prompt"] for prompts in prompt_sets.split().values() for prompt in prompts]

    @abstractmethod
    def build(self, captions: list[str], vae: torch.nn.Module) -> DiffusionPipeline:
        """Untrained text encoders and transformer around a trained autoencoder."""

    @abstractmethod
    def trained(self) -> list[torch.nn.Module]:
        """The transformer and the text encoders."""

    @abstractmethod
    def token_ids(self, captions: list[str]) -> tuple[torch.Tensor, ...]:
        """Long (N, L) per tokenizer."""

    @abstractmethod
    def velocity(self, x: torch.Tensor, sigma: torch.Tensor, ids: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """What the pipeline computes from tokens, with gradients: (B, C, ...) at sigma (B,)."""

    def sigma(self, count: int) -> torch.Tensor:
        """Noise shares to train at, (count,)."""
        return torch.sigmoid(torch.randn(count))

    def loss(
        self, x0: torch.Tensor, noise: torch.Tensor, sigma: torch.Tensor, ids: tuple[torch.Tensor, ...]
    ) -> torch.Tensor:
        """Flow-matching loss of latents (B, C, ...)."""
        shares = sigma.view(-1, *[1] * (x0.dim() - 1))
        return F.mse_loss(self.velocity(x0 + shares * (noise - x0), sigma, ids), noise - x0)
