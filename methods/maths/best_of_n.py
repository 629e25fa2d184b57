"""Best-of-n without training: what a reward, and any other value, is expected to be if the best of n is kept.

The unbiased estimator from N >= n samples (arXiv 2210.10760, App. I; tlc4418/llm_optimization
``bon_sampling.py``): every subset of n is as likely as any other.
"""

from __future__ import annotations

import math

import torch


def rank_weights(samples: int, n: int) -> torch.Tensor:
    """C(i-1, n-1) / C(N, n), (N,): the probability that the sample of rank i from below is the best of n.

    Raises:
        ValueError: unless 1 <= n <= ``samples``.
    """
    if not 1 <= n <= samples:
        raise ValueError(f"the best of {n} cannot be estimated from {samples} samples")
    total = math.comb(samples, n)
    return torch.tensor(
        [math.comb(rank - 1, n - 1) / total for rank in range(1, samples + 1)], dtype=torch.float64
    )


def best_of_n(rewards: torch.Tensor, values: torch.Tensor, n: int) -> torch.Tensor:
    """Expected ``values`` (Q, N) of the image with the highest of n ``rewards`` (Q, N), per prompt (Q,).

    ``values`` may be the rewards themselves. Images of equal reward are equally likely: they share the mean
    of their values.
    """
    ordered, order = rewards.double().sort(dim=1, stable=True)
    sorted_values = values.double().gather(1, order)
    weights = rank_weights(rewards.shape[1], n).to(rewards.device)
    found = []
    for row, row_values in zip(ordered, sorted_values, strict=True):
        _, tie = row.unique_consecutive(return_inverse=True)
        count = tie.bincount().double()
        shared = torch.zeros_like(count).index_add(0, tie, row_values) / count
        found.append((weights * shared[tie]).sum())
    return torch.stack(found)


def best_of_n_kl(n: int) -> float:
    """KL of the best of n samples from one: log n - (n - 1)/n; with ties it is less."""
    return math.log(n) - (n - 1) / n
