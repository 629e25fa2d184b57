"""Text score: cosine of a contrastive image-text model, as in CLIPScore."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from rewards.base import Reward
from rewards.networks import TOKENIZER, ImageCNN, TextTower, in_chunks
from rewards.weights import load_weights
from scenes.vocabulary import IMAGE_SIZE


class ContrastiveModel(nn.Module):
    """Image and caption in one space."""

    def __init__(self, width: int = 96):
        super().__init__()
        self.image = ImageCNN(widths=(24, 48, 80), out=width)
        self.text = TextTower(width=16, hidden=160, out=width)

    def embed_images(self, images: torch.Tensor) -> torch.Tensor:
        """float (N, 3, 32, 32) in [0, 1] -> unit vectors (N, D)."""
        return F.normalize(self.image(images), dim=-1)

    def embed_captions(self, ids: torch.Tensor) -> torch.Tensor:
        """long (..., L) -> unit vectors (..., D)."""
        return F.normalize(self.text(ids), dim=-1)

    def forward(self, images: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """100 * cosine, (N,)."""
        return 100 * (self.embed_images(images) * self.embed_captions(ids)).sum(1)


class SceneTextScore(Reward):
    name = "scene_text_score"
    image_size = IMAGE_SIZE
    scale = "-100 to 100: 100 times the cosine of image and caption"
    licence = "Apache-2.0 (trained in this repository)"
    weights = ("scorers/scene_text_score.safetensors",)

    def __init__(self):
        self.model = ContrastiveModel().eval()
        self.model.load_state_dict(load_weights(self.weights[0]))

    def score(self, images, prompts, metadata):
        return in_chunks(self.model, images, TOKENIZER(prompts))
