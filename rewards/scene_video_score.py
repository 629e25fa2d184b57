"""Visual quality, motion quality and agreement with the caption of a clip of the moving world, summed.

It is to this world what VideoAlign (arXiv 2501.13918) is to photographed clips, and like it the sum is cut as
cosmos-rl cuts it for DDRL.
"""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from rewards.base import Reward
from rewards.clip_networks import (
    CRITERIA,
    ClipScorer,
    FramesCNN,
    check_caption,
    clips_in_chunks,
)
from rewards.weights import load_weights
from scenes.vocabulary import IMAGE_SIZE

LIMIT = 5.0  # upstream: cosmos-rl cuts the overall reward to -5 to 5


class SceneVideoScore(Reward):
    """VQ + MQ + TA, each as a z-score; frames through a small network, then convolutions over time.

    VQ and MQ do not depend on the caption.
    """

    name = "scene_video_score"
    role = "proxy"
    medium = "clip"
    image_size = IMAGE_SIZE
    scale = "-5 to 5: sum of three z-scores, relative to reference clips, cut"
    licence = "Apache-2.0 (trained in this repository)"
    weights = ("scorers/scene_video_score.safetensors",)
    criteria: ClassVar[tuple[str, ...]] = CRITERIA

    def __init__(self):
        self.model = ClipScorer(self.tower()).eval()
        self.model.load_state_dict(load_weights(self.weights[0]))

    @staticmethod
    def tower() -> nn.Module:
        """The network that sees the clip, untrained."""
        return FramesCNN()

    def score(self, images, prompts, metadata):
        found = self.z_scores(images, prompts)
        total = sum(found[criterion] for criterion in self.criteria)
        return total.clamp(-LIMIT, LIMIT) if len(self.criteria) > 1 else total

    def components(self, images, prompts, metadata):
        return self.z_scores(images, prompts) if len(self.criteria) > 1 else {}

    def z_scores(self, clips, captions):
        """float32 (N,) for "vq", "mq" and "ta", not cut."""
        found = clips_in_chunks(self.model.z_scores, clips, captions)
        return dict(zip(CRITERIA, found.unbind(1), strict=True))

    @classmethod
    def made_of(cls):
        return ("scene_video_quality", "scene_motion_quality", "scene_text_alignment")

    @classmethod
    def check_prompts(cls, metadata):
        if "ta" in cls.criteria:
            for prompt in metadata:
                check_caption(prompt["prompt"])
