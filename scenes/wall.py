"""The wall's tone: a surface that no proxy of the world looks at, and whose truth is known."""

from __future__ import annotations

import numpy as np

from scenes.vocabulary import BACKGROUNDS

BORDER = 2  # pixels along the edge that show the wall whatever stands before it


def tone_offset(images: np.ndarray) -> np.ndarray:
    """How far the wall's tone lies from the nearest of the world's three, whichever the prompt asks for.

    The tone is the median brightness of the border.

    Args:
        images: float (N, H, W, 3) in [0, 1].

    Returns:
        float64 (N,) in [0, 1]; scenes drawn by the renderer stay below 0.04, their light not being even.
    """
    images = np.asarray(images, dtype=np.float64)
    border = np.ones(images.shape[1:3], dtype=bool)
    border[BORDER:-BORDER, BORDER:-BORDER] = False
    tones = np.median(images[:, border].mean(-1), axis=1)
    return np.abs(tones[:, None] - np.array(list(BACKGROUNDS.values()))).min(axis=1)
