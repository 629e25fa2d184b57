"""VBench's subject consistency (arXiv 2311.17982): how alike a clip's frames are to DINO ViT-B/16.

Frames enter as upstream's ``vbench/utils.py`` prepares them: shorter side 224 without a low-pass filter,
nothing cut off.
"""

from __future__ import annotations

import torch

from core.media import as_frames, by_clip
from rewards.base import Reward
from rewards.published.consistency import consistency
from rewards.published.hub import HubFiles, folder
from rewards.published.images import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    device,
    in_batches,
    normalised,
    shorter_to_aliased,
    to_pil,
)

MODEL = HubFiles(
    "facebook/dino-vitb16",
    ("config.json", "pytorch_model.bin"),
    "Apache-2.0",
    "f205d5d8e640a89a2b8ef0369670dfc37cc07fc2",
)
BATCH = 32  # frames per forward pass; no effect on the score


class VBenchSubjectConsistency(Reward):
    """The mean over frames of the cosines with the frame before and with the first, by DINO's class token.

    A frozen clip scores 1: read it beside ``frame_difference``.
    """

    name = "vbench_subject_consistency"
    medium = "clip"
    scale = "0 to 1; 1 for a frozen clip (tables show it times 100)"
    licence = "Apache-2.0 (VBench, DINO)"
    hub = (MODEL,)

    def __init__(self):
        from transformers import ViTModel

        # transformers reads pytorch_model.bin with weights_only=True.
        model = ViTModel.from_pretrained(folder(MODEL), add_pooling_layer=False, use_safetensors=False)
        self.model = model.eval().requires_grad_(False).to(device())
        self.size = model.config.image_size

    def _embed(self, frames: torch.Tensor) -> torch.Tensor:
        resized = [shorter_to_aliased(frame, self.size) for frame in to_pil(frames)]
        pixels = normalised(resized, IMAGENET_MEAN, IMAGENET_STD).to(self.model.device)
        return self.model(pixels, interpolate_pos_encoding=True).last_hidden_state[:, 0]

    def score(self, images, prompts, metadata):
        features = in_batches(self._embed, BATCH, *as_frames(images))
        return consistency(by_clip(features, images))
