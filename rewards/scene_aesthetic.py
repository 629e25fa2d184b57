"""Aesthetic score: how little a scene looks corrupted. It sees no text."""

from __future__ import annotations

import torch
from torch import nn

from rewards.base import Reward
from rewards.networks import ImageCNN, in_chunks
from rewards.weights import load_weights
from scenes.vocabulary import IMAGE_SIZE


class AestheticModel(nn.Module):
    """Regresses 10 * (1 - severity) of the corruptions of family A."""

    def __init__(self):
        super().__init__()
        self.image = ImageCNN(out=64)
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(64, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """float (N, 3, 32, 32) in [0, 1] -> (N,) in [0, 10]."""
        return 10 * self.head(self.image(images))[:, 0].sigmoid()


class SceneAesthetic(Reward):
    name = "scene_aesthetic"
    role = "auxiliary"
    image_size = IMAGE_SIZE
    scale = "0 to 10: 10 minus ten times the estimated severity of corruptions; 10 is a clean scene"
    licence = "Apache-2.0 (trained in this repository)"
    weights = ("scorers/scene_aesthetic.safetensors",)

    def __init__(self):
        self.model = AestheticModel().eval()
        self.model.load_state_dict(load_weights(self.weights[0]))

    def score(self, images, prompts, metadata):
        return in_chunks(self.model, images)
