"""Errors of a velocity against the target noise - x0, which losses on the forward process are made of."""

from __future__ import annotations

import torch

MIN_WEIGHT = 1e-5


def matching_error(velocity: torch.Tensor, target: torch.Tensor, adaptive: bool = False) -> torch.Tensor:
    """Mean over dimensions of (v - target)^2, (B,).

    ``adaptive``: over the mean absolute error, without gradient and at least 1e-5.
    """
    error = velocity - target
    squared = error.square().flatten(1).mean(1)
    if not adaptive:
        return squared
    return squared / error.detach().abs().flatten(1).mean(1).clamp(min=MIN_WEIGHT)


def velocity_kl(velocity: torch.Tensor, reference_velocity: torch.Tensor) -> torch.Tensor:
    """mean (v - v_ref)^2 per row, (B,): what released code penalises as KL."""
    return (velocity - reference_velocity).square().flatten(1).mean(1)
