"""Coloured blobs in small images: chroma threshold, nearest hue, connected components."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from scenes.vocabulary import COLOURS

CHROMA_THRESHOLD = 0.30  # max(RGB) - min(RGB); backgrounds are achromatic, objects reach 0.72
_COLOUR_NAMES = tuple(COLOURS)
_NEIGHBOURS = np.zeros((3, 3, 3), dtype=int)  # 4-connected inside an image, unconnected across images
_NEIGHBOURS[1] = [[0, 1, 0], [1, 1, 1], [0, 1, 0]]


@dataclass(frozen=True)
class Blob:
    """One connected region of one hue. Pixel units; ``mask`` covers the bounding box."""

    color: str
    area: int
    top: int
    left: int
    mask: np.ndarray

    @property
    def height(self) -> int:
        return self.mask.shape[0]

    @property
    def width(self) -> int:
        return self.mask.shape[1]

    @property
    def centre(self) -> tuple[float, float]:
        """(x, y) of the bounding box."""
        return self.left + (self.width - 1) / 2, self.top + (self.height - 1) / 2

    @property
    def extent(self) -> float:
        """Share of the bounding box that the blob fills: square 1, circle 0.79, triangle 0.5."""
        return self.area / (self.height * self.width)


def hue_index(images: np.ndarray) -> np.ndarray:
    """Index of the nearest of the six colours per pixel, -1 where the pixel is achromatic.

    Args:
        images: float (N, H, W, 3) in [0, 1].

    Returns:
        int8 (N, H, W).
    """
    high, low = images.max(-1), images.min(-1)
    chroma = high - low
    r, g, b = np.moveaxis(images, -1, 0)
    safe = np.maximum(chroma, 1e-6)
    hue = np.where(
        high == r, ((g - b) / safe) % 6, np.where(high == g, (b - r) / safe + 2, (r - g) / safe + 4)
    )
    nearest = np.round(hue).astype(np.int8) % 6  # COLOURS lie 60 degrees apart, in hue order
    return np.where(chroma >= CHROMA_THRESHOLD, nearest, -1).astype(np.int8)


def blobs(images: np.ndarray, min_area: int) -> list[list[Blob]]:
    """All blobs of at least ``min_area`` pixels, largest first, one list per image.

    Args:
        images: float (N, H, W, 3) in [0, 1].
    """
    hues = hue_index(images)
    found: list[list[Blob]] = [[] for _ in images]
    for index, color in enumerate(_COLOUR_NAMES):
        of_hue = hues == index
        if not of_hue.any():
            continue
        labels, count = ndimage.label(of_hue, structure=_NEIGHBOURS)
        areas = np.bincount(labels.ravel(), minlength=count + 1)
        for label, box in enumerate(ndimage.find_objects(labels), start=1):
            if areas[label] < min_area:
                continue
            image, rows, columns = box
            mask = labels[image.start, rows, columns] == label
            found[image.start].append(Blob(color, int(areas[label]), rows.start, columns.start, mask))
    for items in found:
        items.sort(key=lambda blob: -blob.area)
    return found
