"""Text alignment: VideoAlign's third criterion (arXiv 2501.13918)."""

from __future__ import annotations

from rewards.videoalign import VideoAlign


class VideoAlignTA(VideoAlign):
    name = "videoalign_ta"
    role = "auxiliary"
    scale = "z-score of text alignment, unbounded, about -3 to 3"
    criteria = ("ta",)

    @classmethod
    def made_of(cls):
        return ("videoalign",)
