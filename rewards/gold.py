"""The truth of the embedded world as a metric; see ``scenes.gold``."""

from __future__ import annotations

import torch

from rewards.base import Reward
from scenes.gold import gold_reward


class Gold(Reward):
    name = "gold"
    role = "gold"
    scale = "0 to 1, product of count, shape, colour, position (or legibility) and background factors"
    licence = "Apache-2.0 (this repository)"

    def score(self, images, prompts, metadata):
        pixels = images.permute(0, 2, 3, 1).cpu().numpy()
        return torch.from_numpy(gold_reward(pixels, metadata)).float()
