"""Visual quality: VideoAlign's first criterion (arXiv 2501.13918). It does not see the caption."""

from __future__ import annotations

from rewards.videoalign import VideoAlign


class VideoAlignVQ(VideoAlign):
    name = "videoalign_vq"
    role = "auxiliary"
    scale = "z-score of visual quality, unbounded, about -3 to 3"
    criteria = ("vq",)

    @classmethod
    def made_of(cls):
        return ("videoalign",)
