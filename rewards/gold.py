"""The truth of the embedded world as a metric; see ``scenes.gold``."""

from __future__ import annotations

import torch

from rewards.base import Reward
from scenes.gold import gold_factors, gold_reward
from scenes.vocabulary import IMAGE_SIZE, check_vocabulary


class Gold(Reward):
    name = "gold"
    role = "gold"
    image_size = IMAGE_SIZE
    scale = "0 to 1, product of count, shape, colour, position (or legibility) and background factors"
    licence = "Apache-2.0 (this repository)"

    def components(self, images, prompts, metadata):
        found = gold_factors(images.permute(0, 2, 3, 1).cpu().numpy(), metadata)
        names = dict.fromkeys(name for factors in found for name in factors)
        return {name: torch.tensor([f.get(name, torch.nan) for f in found]) for name in names}

    @classmethod
    def check_prompts(cls, metadata):
        check_vocabulary(metadata)

    def score(self, images, prompts, metadata):
        pixels = images.permute(0, 2, 3, 1).cpu().numpy()
        return torch.from_numpy(gold_reward(pixels, metadata)).float()
