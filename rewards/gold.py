"""The truth of the embedded world as a metric; see ``scenes.gold`` and, of clips, ``scenes.motion_gold``."""

from __future__ import annotations

import math

import numpy as np
import torch

from core.media import medium_of
from rewards.base import Reward
from scenes.gold import Factors, gold_factors
from scenes.motion_gold import motion_factors, product
from scenes.vocabulary import IMAGE_SIZE, check_vocabulary


def _judged(media: torch.Tensor, metadata: list[dict]) -> list[tuple[float, Factors]]:
    """Gold and its factors. A clip whose caption says no motion is judged by the means over its frames."""
    pixels = media.movedim(-3, -1).cpu().numpy()
    if medium_of(media) == "image":
        return [(math.prod(found.values()), found) for found in gold_factors(pixels, metadata)]
    judged = []
    for clip, prompt in zip(pixels, metadata, strict=True):
        if any("motion" in item for item in prompt.get("include", [])):
            (found,) = motion_factors(clip[None], [prompt])
            judged.append((product(found), found))
        else:
            frames = gold_factors(clip, [prompt] * len(clip))
            means = {name: float(np.mean([found[name] for found in frames])) for name in frames[0]}
            judged.append((float(np.mean([math.prod(found.values()) for found in frames])), means))
    return judged


class Gold(Reward):
    name = "gold"
    role = "gold"
    medium = None
    image_size = IMAGE_SIZE
    scale = (
        "0 to 1, product of count, shape, colour, position (or legibility) and background factors; "
        "of a clip, its mean over frames times motion and coherence"
    )
    licence = "Apache-2.0 (this repository)"

    def components(self, images, prompts, metadata):
        found = [factors for _, factors in _judged(images, metadata)]
        names = dict.fromkeys(name for factors in found for name in factors)
        return {name: torch.tensor([f.get(name, torch.nan) for f in found]) for name in names}

    @classmethod
    def check_prompts(cls, metadata):
        check_vocabulary(metadata)

    def score(self, images, prompts, metadata):
        return torch.tensor([gold for gold, _ in _judged(images, metadata)])
