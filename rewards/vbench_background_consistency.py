"""VBench's background consistency (arXiv 2311.17982): how alike a clip's frames are to CLIP ViT-B/32.

Frames enter as upstream's ``vbench/utils.py`` prepares them: bicubic without a low-pass filter, then the
central square.
"""

from __future__ import annotations

import torch

from core.media import as_frames, by_clip
from rewards.base import Reward
from rewards.published.consistency import consistency
from rewards.published.hub import HubFiles, folder
from rewards.published.images import crop_to_aliased, device, in_batches, normalised, to_pil

MODEL = HubFiles(
    "openai/clip-vit-base-patch32",
    ("config.json", "pytorch_model.bin"),
    "MIT (code; the weights carry no licence tag)",
    "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268",
)
BATCH = 32  # frames per forward pass; no effect on the score


class VBenchBackgroundConsistency(Reward):
    """The mean over frames of the cosines with the frame before and with the first, by CLIP's embedding.

    A frozen clip scores 1: read it beside ``frame_difference``.
    """

    name = "vbench_background_consistency"
    medium = "clip"
    scale = "0 to 1; 1 for a frozen clip (tables show it times 100)"
    licence = "Apache-2.0 (VBench); MIT (CLIP's code; the weights carry no licence tag)"
    hub = (MODEL,)

    def __init__(self):
        from transformers import CLIPModel

        # transformers reads pytorch_model.bin with weights_only=True.
        model = CLIPModel.from_pretrained(folder(MODEL), use_safetensors=False)
        self.model = model.eval().requires_grad_(False).to(device())

    def _embed(self, frames: torch.Tensor) -> torch.Tensor:
        size = self.model.config.vision_config.image_size
        pixels = normalised([crop_to_aliased(frame, size) for frame in to_pil(frames)])
        return self.model.get_image_features(pixels.to(self.model.device)).pooler_output

    def score(self, images, prompts, metadata):
        features = in_batches(self._embed, BATCH, *as_frames(images))
        return consistency(by_clip(features, images))
