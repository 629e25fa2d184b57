"""How an image is drawn: its structures by size and direction. A rule without weights."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from rewards.features.base import Features

SIDE = 32  # pixels of the tiles that are analysed, the embedded world's image
DIRECTIONS = 4
FINEST = SIDE // 2  # periods per tile


def bands() -> torch.Tensor:
    """Bool (B, SIDE, SIDE // 2 + 1): the frequencies of each octave and direction; the mean is in none."""
    down, right = torch.meshgrid(torch.fft.fftfreq(SIDE), torch.fft.rfftfreq(SIDE), indexing="ij")
    octave = torch.log2((down.square() + right.square()).sqrt() * SIDE).floor()  # -inf at the mean
    turn = (torch.atan2(down, right) / math.pi * DIRECTIONS).round() % DIRECTIONS
    octaves = range(int(math.log2(FINEST)) + 1)
    return torch.stack([(octave == o) & (turn == d) for o in octaves for d in range(DIRECTIONS)])


class Style(Features):
    """How strong an image's structures are, from coarse to fine and by direction, wherever they lie.

    Power of the grey image over tiles of 32 pixels; the root of each band's share is the feature. Textures,
    blur, hatching and noise move it, another place does not.
    """

    name = "style"
    scale = "0 to 1: 1 where no two images of a prompt share a band of sizes and directions"
    licence = "Apache-2.0 (this repository)"

    def __init__(self):
        self.bands = bands().flatten(1).float()

    def embed(self, images):
        grey = images.mean(1)
        missing = [-side % SIDE for side in grey.shape[1:]]
        grey = F.pad(grey[:, None], (0, missing[1], 0, missing[0]), mode="replicate")[:, 0]
        tiles = grey.unfold(1, SIDE, SIDE).unfold(2, SIDE, SIDE)
        window = torch.hann_window(SIDE, device=images.device)
        tiles = (tiles - tiles.mean((-2, -1), keepdim=True)) * window[:, None] * window
        power = torch.fft.rfft2(tiles).abs().square().mean((1, 2)).flatten(1)
        shares = F.normalize(power @ self.bands.T.to(images.device) + 1e-9, p=1, dim=1)
        return shares.sqrt()
