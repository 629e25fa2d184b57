"""How alike a clip's frames are: VBench's subject consistency, arXiv 2311.17982, over the world's features.

VBench compares DINO's features of photographs. A frozen clip scores 1, whatever its caption says: beside this
score stands ``scene_motion_amount``.
"""

from __future__ import annotations

from core.media import as_frames, by_clip
from rewards.base import Reward
from rewards.features.scene_encoder import SceneEncoder
from rewards.published.consistency import consistency
from scenes.vocabulary import IMAGE_SIZE


class Consistency(Reward):
    name = "consistency"
    role = "auxiliary"
    medium = "clip"
    image_size = IMAGE_SIZE
    scale = "0 to 1: mean cosine of a frame's features and those of the one before and of the first"
    licence = "formula: Apache-2.0 (VBench); features: Apache-2.0 (trained in this repository)"
    weights = SceneEncoder.weights

    def __init__(self):
        self.encoder = SceneEncoder()

    def score(self, images, prompts, metadata):
        return consistency(by_clip(self.encoder(*as_frames(images)), images))
