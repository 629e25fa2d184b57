"""Whether a clip shows what its caption asks for, right or wrong: accuracy by tag in the world that moves.

As GenEval does for images, it asks no more than that the right objects are there, and here that they move the
right way. No method trains on it. It looks neither at shape nor at the background.
"""

from __future__ import annotations

import numpy as np
import torch

from rewards.base import Reward
from rewards.geneval_rules import tag_weights
from rewards.motion_rules import along, check_motion, motion_of, to_arrays
from scenes.motion import travels
from scenes.segmentation import Blob, blobs
from scenes.vocabulary import IMAGE_SIZE

MIN_AREA = 6  # pixels of a blob that counts, as in rewards/geneval.py
ANGLE = 30.0  # degrees off the wanted direction
SLACK = (
    0.7  # of the least and, divided by it, of the greatest travel that the world draws: 5 px without a speed
)
STANDS = 1.0  # pixels that what stands still may stray, from its first place
RETURN = 0.3  # of a bounce's travel, how far from its first place it may end


def right_objects(found: list[Blob], prompt: dict) -> bool:
    """Whether a frame holds as many blobs as wanted, each of a wanted colour."""
    left = [blob.color for blob in found]
    for item in prompt["include"]:
        for _ in range(item["count"]):
            color = item.get("color") or (left[0] if left else None)
            if color not in left:
                return False
            left.remove(color)
    return not left


def right_motion(track: np.ndarray, motion: dict) -> bool:
    """Whether the mean centre (F, 2) of a clip's objects goes where the caption says."""
    moved = track - track[0]
    if motion["kind"] == "still":
        return bool(np.linalg.norm(moved, axis=1).max() <= STANDS)
    shift = moved[len(track) // 2 if motion["kind"] == "bounce" else -1]
    length, (least, greatest) = np.linalg.norm(shift), travels(motion)
    right = along(shift, motion) >= np.cos(np.radians(ANGLE)) and SLACK * least <= length <= greatest / SLACK
    if motion["kind"] == "bounce":
        right = right and np.linalg.norm(moved[-1]) <= RETURN * length
    return bool(right)


class StrictMotion(Reward):
    name = "strict_motion"
    medium = "clip"
    image_size = IMAGE_SIZE
    scale = (
        "0 or 1 per clip: number and colours right in every frame, direction and travel as the caption says"
    )
    licence = "Apache-2.0 (this repository)"

    def score(self, images, prompts, metadata):
        scores = []
        for clip, prompt in zip(to_arrays(images), metadata, strict=True):
            frames = blobs(clip, MIN_AREA)
            right = all(right_objects(found, prompt) for found in frames)
            centres = [np.mean([blob.centre for blob in found], axis=0) for found in frames if found]
            scores.append(right and right_motion(np.array(centres), motion_of(prompt)))
        return torch.tensor(scores)

    @classmethod
    def prompt_weights(cls, metadata):
        return torch.tensor(tag_weights([prompt["tag"] for prompt in metadata]))

    @classmethod
    def check_prompts(cls, metadata):
        check_motion(metadata)
