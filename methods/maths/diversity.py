"""Distances between images of one prompt, in a feature space no reward uses."""

from __future__ import annotations

import torch
from torch.nn import functional as F

DIVERSITY = "diversity"  # where it is logged or scored; a metric that is no reward


def by_kind(kind: str) -> str:
    """The metric of a diversity of one kind, such as colour."""
    return f"{DIVERSITY}_{kind}"


def cosine_distances(features: torch.Tensor) -> torch.Tensor:
    """1 - cosine between all pairs. (..., n, D) -> (..., n, n). A zero vector lies at distance 1 of all."""
    unit = F.normalize(features, dim=-1)
    return 1 - unit @ unit.transpose(-1, -2)


def nearest_distance(features: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """d_i = min over the other images of the same prompt of 1 - cosine (GARDO, arXiv 2512.24138, Eq. 8).

    Args:
        features: (N, D).
        groups: (N,) prompt index.

    Returns:
        (N,) in [0, 2]. An image alone in its group has no neighbour: its distance is 1, which leaves
        its advantage as it is.
    """
    distances = cosine_distances(features)
    same = groups[:, None] == groups[None, :]
    other = same & ~torch.eye(len(groups), dtype=torch.bool, device=groups.device)
    # Rounding leaves equal images a little apart, on either side of zero.
    nearest = distances.masked_fill(~other, torch.inf).min(dim=1).values.clamp(min=0)
    return torch.where(other.any(dim=1), nearest, torch.ones_like(nearest))


def group_diversity(features: torch.Tensor) -> torch.Tensor:
    """Mean pairwise cosine distance within each prompt (GARDO Eq. 9). (..., n, D) -> (...,), n >= 2."""
    n = features.shape[-2]
    if n < 2:
        raise ValueError("diversity needs at least two images per prompt")
    distances = cosine_distances(features)
    off_diagonal = distances.sum((-1, -2)) - distances.diagonal(dim1=-2, dim2=-1).sum(-1)
    return off_diagonal / (n * (n - 1))
