"""Colour entropy: low where a policy has collapsed to few colours, high in noise."""

from __future__ import annotations

import torch

from rewards.base import Reward
from rewards.published.images import to_uint8

LEVELS = 8  # ours: per channel, so 512 colours


class ColourEntropy(Reward):
    name = "colour_entropy"
    role = "artefact"
    scale = "0 to 9 bits: entropy of the histogram of 8 x 8 x 8 colours; neither high nor low is better"
    licence = "Apache-2.0 (this repository)"

    def score(self, images, prompts, metadata):
        levels = to_uint8(images).long() * LEVELS // 256
        colours = (levels[:, 0] * LEVELS + levels[:, 1]) * LEVELS + levels[:, 2]
        counts = torch.stack([row.flatten().bincount(minlength=LEVELS**3) for row in colours])
        shares = counts / counts.sum(1, keepdim=True)
        return torch.special.entr(shares).sum(1) / torch.log(torch.tensor(2.0))
