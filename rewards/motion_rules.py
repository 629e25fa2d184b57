"""What the rules on clips of the embedded world share: where its colour is, and what a caption asks for."""

from __future__ import annotations

import numpy as np
import torch

from scenes.motion import BOUNCES, DIRECTIONS
from scenes.segmentation import CHROMA_THRESHOLD
from scenes.vocabulary import check_vocabulary


def to_arrays(clips: torch.Tensor) -> np.ndarray:
    """Float (N, F, 3, H, W) -> float (N, F, H, W, 3) on the CPU."""
    return clips.movedim(-3, -1).cpu().numpy()


def coloured_centres(clips: np.ndarray) -> np.ndarray:
    """Mean position of all coloured pixels by frame, (N, F, 2) as (x, y); NaN in a frame that has none.

    Args:
        clips: float (N, F, H, W, 3) in [0, 1].
    """
    red, green, blue = np.moveaxis(clips, -1, 0)
    chroma = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    coloured = (chroma >= CHROMA_THRESHOLD).astype(np.float64)
    height, width = coloured.shape[-2:]
    sums = [coloured.sum(-2) @ np.arange(width), coloured.sum(-1) @ np.arange(height)]
    number = coloured.sum((-2, -1))
    return np.stack(sums, -1) / np.where(number > 0, number, np.nan)[..., None]


def path_length(track: np.ndarray) -> float:
    """Pixels from frame to frame, summed; ``track`` (F, 2). Frames without a position are passed over."""
    seen = track[~np.isnan(track[:, 0])]
    return float(np.linalg.norm(np.diff(seen, axis=0), axis=1).sum())


def motion_of(prompt: dict) -> dict:
    """The motion that a prompt asks for. Raises ``ValueError`` where it asks for none, or for several."""
    motions = [item.get("motion") for item in prompt.get("include", [])]
    if not motions or None in motions or any(motion != motions[0] for motion in motions):
        raise ValueError(f"prompt {prompt['prompt']!r} asks for no motion, or not for one of all its objects")
    return motions[0]


def along(shift: np.ndarray, motion: dict) -> float:
    """Cosine between a shift (2,) and the wanted direction; 0 without a shift.

    A bounce may begin to either end of its axis: the cosine's absolute value.
    """
    bounces = motion["kind"] == "bounce"
    wanted = (BOUNCES if bounces else DIRECTIONS)[motion["direction"]]
    length = np.linalg.norm(shift)
    cosine = float(shift @ np.array(wanted) / length) if length else 0.0
    return abs(cosine) if bounces else cosine


def check_motion(metadata: list[dict]) -> None:
    """Raise ``ValueError`` for a prompt that does not say what moves how."""
    check_vocabulary(metadata)
    for prompt in metadata:
        motion_of(prompt)
