"""Edge density: high where a policy paints texture, grids or fragments of text over the image."""

from __future__ import annotations

import torch

from rewards.base import Reward
from rewards.published.images import to_uint8

LOW, HIGH = 100, 200  # ours: Canny's thresholds on 8-bit luminance, OpenCV's tutorial values


class EdgeDensity(Reward):
    name = "edge_density"
    role = "artefact"
    scale = "0 to 1: share of pixels on an edge (Canny); neither high nor low is better"
    licence = "Apache-2.0 (this repository)"

    def score(self, images, prompts, metadata):
        import cv2

        pixels = to_uint8(images).permute(0, 2, 3, 1).numpy()
        edges = [cv2.Canny(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), LOW, HIGH) for image in pixels]
        return torch.tensor([(edge > 0).mean() for edge in edges])
