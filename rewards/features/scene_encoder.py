"""Self-supervised features of the embedded world's scenes."""

from __future__ import annotations

import torch
from torch import nn

from rewards.features.base import Features
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


class SceneEncoder(Features):
    """Features of scenes: what is where, of which size and colour, on which background."""

    name = "scene_encoder"
    licence = "Apache-2.0 (trained in this repository)"
    weights = ("scorers/scene_encoder.safetensors",)

    def __init__(self):
        self.model = EncoderModel().eval()
        self.model.load_state_dict(load_weights(self.weights[0]))

    def embed(self, images):
        return in_chunks(self.model, images)
