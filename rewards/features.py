"""Encoders for diversity: images in, feature vectors out. No reward uses them."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from rewards.networks import ImageCNN, in_chunks
from rewards.weights import load_weights


class EncoderModel(nn.Module):
    """SimCLR (arXiv 2002.05709): the projection serves the contrastive loss and is dropped afterwards."""

    def __init__(self, features: int = 128, projected: int = 64):
        super().__init__()
        self.image = ImageCNN(out=features)
        self.projection = nn.Sequential(nn.ReLU(), nn.Linear(features, projected))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """float (N, 3, 32, 32) in [0, 1] -> features (N, D)."""
        return self.image(images)


class SceneEncoder:
    """Self-supervised features of scenes: what is where, of which size and colour, on which background."""

    name: ClassVar[str] = "scene_encoder"
    weights: ClassVar[tuple[str, ...]] = ("scorers/scene_encoder.safetensors",)

    def __init__(self):
        self.model = EncoderModel().eval()
        self.model.load_state_dict(load_weights(self.weights[0]))

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """float (N, 3, 32, 32) in [0, 1] -> float32 (N, D)."""
        return in_chunks(self.model, images)


_ENCODERS = {encoder.name: encoder for encoder in (SceneEncoder,)}


def get_features(name: str) -> SceneEncoder:
    """An encoder, weights loaded and checked. Raises ``ValueError`` with the valid names."""
    if name not in _ENCODERS:
        raise ValueError(f"unknown feature encoder {name!r}; valid: {', '.join(sorted(_ENCODERS))}")
    return _ENCODERS[name]()
