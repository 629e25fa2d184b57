"""From rewards to advantages, within the group of images of one prompt."""

from __future__ import annotations

from typing import Literal

import torch

Normalisation = Literal["group_std", "global_std", "none"]
Reading = Literal["paper", "official_code"]
ROUNDING = 1e-6  # cosine distance in float32 below which two images are the same


def group_mean(values: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """Mean of each value's group, (N,) -> (N,)."""
    _, index = groups.unique(return_inverse=True)
    total = torch.zeros(int(index.max()) + 1, dtype=values.dtype, device=values.device)
    count = torch.zeros_like(total)
    total.index_add_(0, index, values)
    count.index_add_(0, index, torch.ones_like(values))
    return (total / count)[index]


def group_advantages(
    rewards: torch.Tensor, groups: torch.Tensor, normalisation: Normalisation, epsilon: float = 1e-4
) -> torch.Tensor:
    """A_i = (R_i - mean_group R) / (std + epsilon)  (GARDO, arXiv 2512.24138, Eq. 1).

    ``group_std`` divides by the population standard deviation of the group (the papers), ``global_std``
    by that of all rewards of the iteration (Flow-GRPO's ``global_std=True``), ``none`` not at all
    (GARDO's "w/o std"). A group of equal rewards gets advantage 0 in every form.

    Args:
        rewards: (N,).
        groups: (N,) prompt index.

    Returns:
        (N,).
    """
    centred = rewards - group_mean(rewards, groups)
    if normalisation == "none":
        return centred
    if normalisation == "global_std":
        return centred / (rewards.std(correction=0) + epsilon)
    return centred / (group_mean(centred**2, groups).sqrt() + epsilon)


def diversity_aware(
    advantages: torch.Tensor, distance: torch.Tensor, groups: torch.Tensor, reading: Reading
) -> torch.Tensor:
    """Shape positive advantages by how far an image lies from its group (GARDO Eq. 8).

    ``paper``: A d where A > 0. ``official_code``: d is divided by its group mean, so common good images
    shrink; where a whole group has distance 0, up to rounding, the factor is 1 (the public code: NaN).

    Args:
        advantages: (N,) without division by a standard deviation.
        distance: (N,) from ``nearest_distance``.
    """
    if reading == "paper":
        return torch.where(advantages > 0, advantages * distance, advantages)
    mean = group_mean(distance, groups)
    factor = torch.where(mean > ROUNDING, distance / mean.clamp(min=ROUNDING), torch.ones_like(mean))
    return torch.where(advantages >= 0, advantages * factor, advantages)
