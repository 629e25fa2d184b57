"""Preference score: a Bradley-Terry model of 'right caption and clean image' against anything worse."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from rewards.base import Reward
from rewards.networks import TOKENIZER, ImageCNN, TextTower, in_chunks
from rewards.weights import load_weights
from scenes.vocabulary import IMAGE_SIZE


class PreferenceModel(nn.Module):
    """logit = agreement of image and caption (a scaled cosine) + quality of the image."""

    def __init__(self, image: nn.Module | None = None, width: int = 128):
        super().__init__()
        self.image = image or ImageCNN(out=width)
        self.projection = nn.Linear(width, width)
        self.quality = nn.Linear(width, 1)
        self.text = TextTower(out=width)
        self.log_scale = nn.Parameter(torch.tensor(2.3))

    def image_terms(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings (N, D), to be multiplied with ``caption_terms``, and quality (N,)."""
        hidden = self.image(images).relu()
        unit = F.normalize(self.projection(hidden), dim=-1)
        return self.log_scale.exp() * unit, self.quality(hidden)[:, 0]

    def caption_terms(self, ids: torch.Tensor) -> torch.Tensor:
        """Token ids long (..., L) -> unit vectors (..., D)."""
        return F.normalize(self.text(ids), dim=-1)

    def forward(self, images: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """float (N, 3, 32, 32) in [0, 1] and token ids long (N, L) -> logits (N,)."""
        embedding, quality = self.image_terms(images)
        return (embedding * self.caption_terms(ids)).sum(1) + quality


class ScenePreference(Reward):
    name = "scene_preference"
    role = "auxiliary"
    image_size = IMAGE_SIZE
    scale = "logit, unbounded, of arbitrary zero: 1 more is preferred with odds e : 1"
    licence = "Apache-2.0 (trained in this repository)"
    weights = ("scorers/scene_preference.safetensors",)

    def __init__(self):
        self.model = PreferenceModel().eval()
        self.model.load_state_dict(load_weights(self.weights[0]))

    def score(self, images, prompts, metadata):
        return in_chunks(self.model, images, TOKENIZER(prompts))
