"""What a scene shows, its colours and places aside: shapes and writing. A rule without weights."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional as F

from rewards.features.base import Features
from scenes.gold import MIN_AREA, shape_iou
from scenes.segmentation import Blob, blobs
from scenes.vocabulary import SHAPES

WRITING = (6, 12)  # cells, of the box around the ink


def shapes(found: list[Blob]) -> np.ndarray:
    """How many of each shape, (S,): a blob counts for the shapes it resembles, one in all."""
    likeness = np.array([[shape_iou(blob, shape) ** 4 for shape in SHAPES] for blob in found])
    return (likeness / likeness.sum(1, keepdims=True)).sum(0) if found else np.zeros(len(SHAPES))


def writing(found: list[Blob]) -> torch.Tensor:
    """The holes in the largest blob, cropped and brought to one size: (cells,) of norm 1, or zeros."""
    cells = torch.zeros(WRITING)
    if found:
        ink = ndimage.binary_fill_holes(found[0].mask) & ~found[0].mask
        if ink.any():
            down, right = (np.flatnonzero(ink.any(axis)) for axis in (1, 0))
            box = torch.from_numpy(ink[down[0] : down[-1] + 1, right[0] : right[-1] + 1]).float()
            cells = F.interpolate(box[None, None], WRITING, mode="area")[0, 0]
    return F.normalize(cells.flatten(), dim=0)


class SceneContent(Features):
    """How many of which shape, and what is written on a sign, however coloured and wherever it lies."""

    name = "scene_content"
    scale = "0 to 1: 1 where no two images of a prompt show the same"
    licence = "Apache-2.0 (this repository)"

    def embed(self, images):
        found = blobs(images.permute(0, 2, 3, 1).cpu().double().numpy(), MIN_AREA)
        parts = [torch.cat([torch.from_numpy(shapes(each)).float(), writing(each)]) for each in found]
        return torch.stack(parts)
