"""The proxy of the world that moves: half for where the colour goes, half for the number of coloured blobs.

It never looks at which pixels move, by which path, of which shape or on which background: a cross-fade of two
blobs that stand still, or a leap from end to end, earns as much as motion does.
"""

from __future__ import annotations

import numpy as np
import torch

from core.prompts import count_objects
from rewards.base import Reward
from rewards.motion_rules import along, check_motion, coloured_centres, motion_of, path_length, to_arrays
from scenes.motion import travels
from scenes.segmentation import blobs
from scenes.vocabulary import IMAGE_SIZE

FULL = 6.0  # ours: pixels of travel that earn all of it, and of path that cost one who stands still all of it
MIN_AREA = 6  # pixels of a blob that counts, as in rewards/geneval.py


def movement(track: np.ndarray, motion: dict) -> float:
    """How far all the colour goes the wanted way, in [0, 1]; 0 where a frame that is looked at has none.

    - a move: max(0, cosine) * min(1, |d| / full) of the displacement d from the first frame to the last.
      ``full`` is 6 px, or the least that the world draws where the caption names a speed. None is too far;
    - a bounce: the same of the first frame to the middle one, times max(0, 1 - |last - first| / |d|);
    - standing still: max(0, 1 - path / 6 px).

    Args:
        track: ``coloured_centres`` of a clip, (F, 2).
    """
    if motion["kind"] == "still":
        return 0.0 if np.isnan(track).any() else max(0.0, 1 - path_length(track) / FULL)
    turn = len(track) // 2 if motion["kind"] == "bounce" else -1
    shift = track[turn] - track[0]
    length = np.linalg.norm(shift)
    if np.isnan(length) or length == 0:
        return 0.0
    full = travels(motion)[0] if motion.get("speed") else FULL
    moved = max(0.0, along(shift, motion)) * min(1.0, length / full)
    if motion["kind"] == "move":
        return float(moved)
    stayed_away = np.linalg.norm(track[-1] - track[0]) / length
    return float(moved * max(0.0, 1 - stayed_away)) if np.isfinite(stayed_away) else 0.0


class Motion(Reward):
    name = "motion"
    role = "proxy"
    medium = "clip"
    image_size = IMAGE_SIZE
    scale = (
        "0 to 1: mean of how far all colour goes the wanted way and the share of frames with the right count"
    )
    licence = "Apache-2.0 (this repository)"

    def components(self, images, prompts, metadata):
        clips = to_arrays(images)
        tracks = zip(coloured_centres(clips), metadata, strict=True)
        right = [
            [len(found) == count_objects(prompt) for found in blobs(clip, MIN_AREA)]
            for clip, prompt in zip(clips, metadata, strict=True)
        ]
        return {
            "movement": torch.tensor([movement(track, motion_of(p)) for track, p in tracks]),
            "count": torch.tensor(right).float().mean(1),
        }

    def score(self, images, prompts, metadata):
        parts = self.components(images, prompts, metadata)
        return (parts["movement"] + parts["count"]) / 2

    @classmethod
    def check_prompts(cls, metadata):
        check_motion(metadata)
