"""The video score of a second network, with another architecture, other clips and other corruptions."""

from __future__ import annotations

from rewards.clip_networks import ClipConv3d
from rewards.scene_video_score import SceneVideoScore


class SceneVideoScoreUnseen(SceneVideoScore):
    """VQ + MQ + TA, each as a z-score; convolutions over space and time together."""

    name = "scene_video_score_unseen"
    role = "unseen"
    weights = ("scorers/scene_video_score_unseen.safetensors",)

    @staticmethod
    def tower():
        return ClipConv3d()

    @classmethod
    def made_of(cls):
        return ()
