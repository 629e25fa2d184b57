"""Colours, wherever they lie: a soft histogram in Oklab. A rule without weights."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from rewards.features.base import Features

# From sRGB without its gamma to the cones' responses, and from their cube roots to lightness, green to red,
# blue to yellow: Ottosson, "A perceptual color space for image processing" (2020).
TO_CONES = (
    (0.41222147, 0.53633254, 0.05144599),
    (0.21190350, 0.68069955, 0.10739696),
    (0.08830246, 0.28171884, 0.62997870),
)
TO_OKLAB = (
    (0.21045426, 0.79361779, -0.00407205),
    (1.97799850, -2.42859221, 0.45059371),
    (0.02590404, 0.78277177, -0.80867577),
)
LOW, HIGH = (0.0, -0.4, -0.4), (1.0, 0.4, 0.4)  # of the axes; sRGB's colours lie within
BINS = (3, 9, 9)  # ours: light, middle, dark; a colour of full saturation lies about three bins from grey


def oklab(images: torch.Tensor) -> torch.Tensor:
    """sRGB (N, 3, H, W) in [0, 1] -> Oklab (N, 3, H, W)."""
    linear = torch.where(images <= 0.04045, images / 12.92, ((images + 0.055) / 1.055).clamp(min=0) ** 2.4)
    cones = torch.einsum("ij,njhw->nihw", images.new_tensor(TO_CONES), linear)
    return torch.einsum("ij,njhw->nihw", images.new_tensor(TO_OKLAB), cones.clamp(min=0) ** (1 / 3))


class Colour(Features):
    """Which colours an image has and how much of each. A pixel is shared out to the bins around it, so that a
    shade more or less moves little; the root makes 1 - cosine the distance of Bhattacharyya's coefficient."""

    name = "colour"
    scale = "0 to 1: 1 where no two images of a prompt share a colour"
    licence = "Apache-2.0 (this repository)"

    def embed(self, images):
        histogram = images.new_ones(len(images), images[0, 0].numel(), 1)
        for values, low, high, bins in zip(oklab(images).unbind(1), LOW, HIGH, BINS, strict=True):
            place = (values.flatten(1) - low) / (high - low) * (bins - 1)
            shares = F.relu(1 - (place[..., None] - torch.arange(bins, device=images.device)).abs())
            histogram = (histogram[..., :, None] * shares[..., None, :]).flatten(2)
        return histogram.mean(1).sqrt()
