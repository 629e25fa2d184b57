"""DINOv3 ViT-L/16 (arXiv 2508.10104): GARDO's features, as timm pools them.

GARDO takes timm's model, which averages the patch tokens of a 256-pixel image; transformers' own pooled
output would be the class token at 224 pixels.
"""

from __future__ import annotations

import torch

from rewards.features.base import Features
from rewards.published.hub import HubFiles, folder
from rewards.published.images import IMAGENET_MEAN, IMAGENET_STD, device, in_batches, square

MODEL = HubFiles(
    "facebook/dinov3-vitl16-pretrain-lvd1689m",
    ("config.json", "model.safetensors"),
    "DINOv3 License",
    "ea8dc2863c51be0a264bab82070e3e8836b02d51",
    gated=True,
)
SIZE = 256  # upstream: timm's vit_large_patch16_dinov3.lvd1689m
BATCH = 32  # images per forward pass; no effect on the features


class DINOv3(Features):
    name = "dinov3"
    licence = "DINOv3 License"
    hub = (MODEL,)
    expected_base = {"sd3.5-medium": 0.2184}
    expected_source = "GARDO Table 1"

    def __init__(self):
        from transformers import DINOv3ViTModel

        model = DINOv3ViTModel.from_pretrained(folder(MODEL), use_safetensors=True)
        self.model = model.eval().requires_grad_(False).to(device())

    def _batch(self, images: torch.Tensor) -> torch.Tensor:
        pixels = square(images, SIZE, IMAGENET_MEAN, IMAGENET_STD).to(self.model.device)
        return self._pooled(self.model(pixel_values=pixels).last_hidden_state)

    def _pooled(self, tokens: torch.Tensor) -> torch.Tensor:
        """(N, class and registers and patches, D) -> (N, D)."""
        return tokens[:, 1 + self.model.config.num_register_tokens :].mean(1)

    def embed(self, images):
        return in_batches(self._batch, BATCH, images)
