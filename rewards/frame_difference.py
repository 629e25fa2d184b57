"""How much a clip changes from frame to frame: what tells a frozen clip from a steady one."""

from __future__ import annotations

from rewards.base import Reward
from rewards.published.consistency import frame_changes


class FrameDifference(Reward):
    """Mean absolute difference of consecutive frames: 0 for a frozen clip, which every consistency rewards.

    It stands in for VBench's dynamic degree, whose optical flow needs torchvision. It cannot tell motion from
    flicker: read it beside ``motion_smoothness``.
    """

    name = "frame_difference"
    role = "artefact"
    medium = "clip"
    scale = (
        "0 to 1: mean absolute difference of consecutive frames; 0 is a frozen clip, neither end is better"
    )
    licence = "Apache-2.0 (this repository)"

    def score(self, images, prompts, metadata):
        return frame_changes(images).mean(1)
