"""Motion quality: VideoAlign's second criterion (arXiv 2501.13918). It does not see the caption."""

from __future__ import annotations

from rewards.videoalign import VideoAlign


class VideoAlignMQ(VideoAlign):
    name = "videoalign_mq"
    role = "auxiliary"
    scale = "z-score of motion quality, unbounded, about -3 to 3"
    criteria = ("mq",)

    @classmethod
    def made_of(cls):
        return ("videoalign",)
