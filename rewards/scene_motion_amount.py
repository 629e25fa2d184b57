"""How far the colour of a clip travels: 0 in a frozen clip, which measures of consistency find perfect."""

from __future__ import annotations

import torch

from rewards.base import Reward
from rewards.motion_rules import coloured_centres, path_length, to_arrays
from scenes.vocabulary import IMAGE_SIZE


class SceneMotionAmount(Reward):
    name = "scene_motion_amount"
    role = "artefact"
    medium = "clip"
    image_size = IMAGE_SIZE
    scale = (
        "0 pixels and more: path of the centre of all coloured pixels; neither high nor low is better, "
        "0 is a frozen clip"
    )
    licence = "Apache-2.0 (this repository)"

    def score(self, images, prompts, metadata):
        return torch.tensor([path_length(track) for track in coloured_centres(to_arrays(images))])
