"""VBench's temporal flickering (arXiv 2311.17982, ``vbench/temporal_flickering.py``): a rule."""

from __future__ import annotations

from rewards.base import Reward
from rewards.published.consistency import frame_changes


class VBenchTemporalFlickering(Reward):
    """1 minus the mean absolute difference of consecutive frames: ``frame_difference`` turned round.

    VBench takes it on prompts that ask for a still scene, where every change is a flaw; elsewhere it falls
    with motion too. A frozen clip scores 1.
    """

    name = "vbench_temporal_flickering"
    medium = "clip"
    scale = "0 to 1; 1 for a frozen clip (tables show it times 100)"
    licence = "formula: Apache-2.0 (VBench); Apache-2.0 (this repository)"

    def score(self, images, prompts, metadata):
        return 1 - frame_changes(images).mean(1)
