"""Clips as animated pictures that a browser plays without a word of script."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

LOSSLESS_BELOW = 2**22  # bytes of pixels; a photograph's clip would take tens of MB


def animated(frames: np.ndarray, frames_per_second: float) -> bytes:
    """A WebP that plays uint8 frames (F, H, W, 3) for ever, exactly as they are where they are small."""
    first, *others = map(Image.fromarray, frames)
    buffer, lossless = io.BytesIO(), frames.nbytes < LOSSLESS_BELOW
    first.save(
        buffer,
        "webp",
        save_all=True,
        append_images=others,
        duration=round(1000 / frames_per_second),
        loop=0,
        lossless=lossless,
        quality=80,
        method=4 if lossless else 0,
    )
    return buffer.getvalue()
