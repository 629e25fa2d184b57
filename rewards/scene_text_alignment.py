"""Agreement of a clip of the moving world with its caption: what moves, how, how many, and where."""

from __future__ import annotations

from rewards.scene_video_score import SceneVideoScore


class SceneTextAlignment(SceneVideoScore):
    name = "scene_text_alignment"
    role = "auxiliary"
    scale = "z-score of agreement with the caption, relative to reference clips, unbounded"
    criteria = ("ta",)

    @classmethod
    def made_of(cls):
        return ("scene_video_score",)
