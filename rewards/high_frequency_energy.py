"""High-frequency energy: where pixel noise and checkerboards show, which reward models hardly see."""

from __future__ import annotations

import torch

from rewards.base import Reward

CUT = 0.25  # ours: cycles per pixel, half of the highest frequency
LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601


class HighFrequencyEnergy(Reward):
    name = "high_frequency_energy"
    role = "artefact"
    scale = "0 to 1: share of the luminance's variance above a quarter cycle per pixel; 0 is a flat image"
    licence = "Apache-2.0 (this repository)"

    def score(self, images, prompts, metadata):
        grey = torch.einsum("nchw,c->nhw", images.float().cpu(), torch.tensor(LUMINANCE))
        grey = grey - grey.mean((1, 2), keepdim=True)
        power = torch.fft.fft2(grey, norm="ortho").abs() ** 2
        rows, columns = (torch.fft.fftfreq(side) for side in grey.shape[1:])
        high = torch.hypot(rows[:, None], columns[None, :]) > CUT
        total = power.sum((1, 2))
        return torch.where(total > 1e-9, power[:, high].sum(1) / total.clamp(min=1e-9), 0.0)
