"""How well every other frame is guessed from its neighbours. A rule without weights, this project's own."""

from __future__ import annotations

from rewards.base import Reward


class MotionSmoothness(Reward):
    """1 minus the mean absolute difference of every second frame and the mean of the frames beside it.

    VBench's motion smoothness (arXiv 2311.17982, ``vbench/motion_smoothness.py``) drops the same frames and
    has AMT-S interpolate them, whose weights are CC BY-NC 4.0. A mean of two frames shows a moving object
    twice, so motion costs something here even when it is smooth, and values compare only within this suite.
    A frozen clip scores 1. Raises ``ValueError`` for fewer than three frames.
    """

    name = "motion_smoothness"
    medium = "clip"
    scale = "0 to 1; 1 for a frozen clip; not VBench's values, which take a network for interpolation"
    licence = "Apache-2.0 (this repository)"

    def score(self, images, prompts, metadata):
        if images.shape[1] < 3:
            raise ValueError("motion_smoothness needs clips of three frames or more")
        middle = images[:, 1:-1:2]
        guessed = (images[:, :-2:2] + images[:, 2::2]) / 2
        return 1 - (middle - guessed).abs().flatten(1).mean(1)
