"""How much a clip's frames resemble each other by their features: VBench, arXiv 2311.17982."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def consistency(features: torch.Tensor) -> torch.Tensor:
    """The mean over frames i >= 1 of (max(0, cos(f_i, f_{i-1})) + max(0, cos(f_i, f_0))) / 2.

    From upstream's ``vbench/subject_consistency.py``, ``background_consistency.py`` takes the same.

    Args:
        features: float (N, F, D) of F >= 2 frames, of any length: only directions count.

    Returns:
        (N,) in [0, 1]; 1 for frames that are all alike. Raises ``ValueError`` for fewer than two frames.
    """
    if features.dim() != 3 or features.shape[1] < 2:
        raise ValueError(
            f"consistency needs features (N, F, D) of two frames or more, got {tuple(features.shape)}"
        )
    unit = F.normalize(features.float(), dim=-1)
    before = (unit[:, 1:] * unit[:, :-1]).sum(-1)
    first = (unit[:, 1:] * unit[:, :1]).sum(-1)
    return ((before.clamp(0, 1) + first.clamp(0, 1)) / 2).mean(1)


def frame_changes(clips: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of each frame and the one before it.

    Args:
        clips: float (N, F, 3, H, W) in [0, 1] of F >= 2 frames.

    Returns:
        (N, F - 1) in [0, 1]. Raises ``ValueError`` for fewer than two frames.
    """
    if clips.shape[1] < 2:
        raise ValueError("a clip of one frame does not change: two frames or more are needed")
    return clips.diff(dim=1).abs().flatten(2).mean(2)
