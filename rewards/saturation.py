"""Saturation: preference models like vivid colours, and policies that optimise them overdo it."""

from __future__ import annotations

from rewards.base import Reward


class Saturation(Reward):
    name = "saturation"
    role = "artefact"
    scale = "0 to 1: mean of (max - min) / max over the channels (HSV); neither high nor low is better"
    licence = "Apache-2.0 (this repository)"

    def score(self, images, prompts, metadata):
        high, low = images.amax(1), images.amin(1)
        return ((high - low) / high.clamp(min=1e-6)).mean((1, 2)).cpu()
