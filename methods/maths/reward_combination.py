"""One reward out of several: GARDO's multi-reward baseline and reward ensembles."""

from __future__ import annotations

from typing import Literal

import torch

Combination = Literal["proxy", "weighted", "ensemble_mean", "ensemble_worst"]


def standardised(scores: torch.Tensor, epsilon: float = 1e-4) -> torch.Tensor:
    """Zero mean and unit population standard deviation over the last dimension; constants become 0."""
    centred = scores - scores.mean(-1, keepdim=True)
    return centred / (scores.std(-1, correction=0, keepdim=True) + epsilon)


def combine(
    proxy: torch.Tensor,
    auxiliary: torch.Tensor | None,
    combination: Combination,
    weights: tuple[float, float],
) -> torch.Tensor:
    """The reward to optimise, (B,).

    ``proxy``: R alone. ``weighted``: w_0 R + w_1 sum_k R_k in the rewards' own scales (GARDO,
    arXiv 2512.24138, Fig. 8b: 0.8 and 0.1). ``ensemble_mean`` and ``ensemble_worst``: mean or minimum over
    proxy and auxiliaries, each standardised over the batch (mean and worst-case optimisation of
    arXiv 2310.02743, whose members share one scale; ours do not).

    Args:
        proxy: (B,).
        auxiliary: (K, B).
        weights: of the proxy and of each auxiliary reward.
    """
    if combination == "proxy":
        return proxy
    if combination == "weighted":
        return weights[0] * proxy + weights[1] * auxiliary.sum(0)
    members = standardised(torch.cat([proxy[None], auxiliary.to(proxy)]))
    return members.mean(0) if combination == "ensemble_mean" else members.min(0).values
