"""Visual quality of a clip of the moving world, whatever its caption: are the frames well drawn?"""

from __future__ import annotations

from rewards.scene_video_score import SceneVideoScore


class SceneVideoQuality(SceneVideoScore):
    name = "scene_video_quality"
    role = "auxiliary"
    scale = "z-score of visual quality, relative to reference clips, unbounded"
    criteria = ("vq",)

    @classmethod
    def made_of(cls):
        return ("scene_video_score",)
