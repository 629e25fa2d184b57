"""Motion quality of a clip of the moving world, whatever its caption: do its objects move as objects do?"""

from __future__ import annotations

from rewards.scene_video_score import SceneVideoScore


class SceneMotionQuality(SceneVideoScore):
    name = "scene_motion_quality"
    role = "auxiliary"
    scale = "z-score of motion quality, relative to reference clips, unbounded"
    criteria = ("mq",)

    @classmethod
    def made_of(cls):
        return ("scene_video_score",)
