"""A two-dimensional world: the pre-trained mixture, the reward landscape, and what is measured on samples.

Eight clusters lie on a ring and one in the centre, which the pre-trained model draws with a tenth of the
density of the others. The reward is high at every second cluster of the ring and in the centre.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

RING, RADIUS = 8, 2.5
SPREAD = 0.4  # standard deviation of every cluster
CENTRE_DENSITY = 0.1  # of a ring cluster's (GARDO Fig. 3)
HEIGHTS = {  # of the reward's bumps, the central one last
    "graded": (0.7, 0.8, 0.9, 0.8, 1.0),
    "equal": (1.0, 1.0, 1.0, 1.0, 1.0),
}
COVERED = 0.02  # least share of the samples that covers a cluster


def clusters() -> tuple[torch.Tensor, torch.Tensor]:
    """Centres (9, 2), the central one last, and their probabilities (9,)."""
    angles = torch.arange(RING) * (2 * math.pi / RING)
    ring = RADIUS * torch.stack([angles.cos(), angles.sin()], dim=1)
    weights = torch.tensor([1.0] * RING + [CENTRE_DENSITY])
    return torch.cat([ring, torch.zeros(1, 2)]), weights / weights.sum()


def rewarded() -> torch.Tensor:
    """Centres of the high-reward clusters, (5, 2), the central one last."""
    centres, _ = clusters()
    return torch.cat([centres[:RING:2], centres[RING:]])


def sample(n: int, rng: torch.Generator) -> torch.Tensor:
    """Points of the pre-trained distribution, (n, 2)."""
    centres, weights = clusters()
    index = torch.multinomial(weights, n, replacement=True, generator=rng)
    return centres[index] + SPREAD * torch.randn(n, 2, generator=rng)


@dataclass(frozen=True)
class Reward:
    """Highest bump at each point, (N, 2) -> (N,) in [0, 1].

    ``width``: standard deviation of a bump; the smaller, the sharper the reward. ``heights``: a key of
    ``HEIGHTS``.
    """

    width: float
    heights: str

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        squared = (x[:, None] - rewarded()[None]).square().sum(-1)
        return (torch.tensor(HEIGHTS[self.heights]) * torch.exp(-squared / (2 * self.width**2))).max(1).values


class FittedReward:
    """An auxiliary reward: kernel regression on few rewarded points of the pre-trained distribution.

    Like a learned reward model it knows the reward where the pre-trained model draws and little elsewhere.
    """

    def __init__(self, reward: Reward, rng: torch.Generator, points: int = 200, width: float = 0.4):
        self.x, self.width = sample(points, rng), width
        self.y = reward(self.x)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        squared = (x[:, None] - self.x[None]).square().sum(-1)
        kernel = torch.exp(-squared / (2 * self.width**2))
        return (kernel @ self.y) / (kernel.sum(1) + 0.1)  # far from all points the estimate is 0


def fourier(x: torch.Tensor, count: int = 64, width: float = 1.0) -> torch.Tensor:
    """Random Fourier features (N, count): their cosine distance grows with the distance of two points."""
    rng = torch.Generator().manual_seed(0)
    frequency = torch.randn(2, count, generator=rng) / width
    phase = 2 * math.pi * torch.rand(count, generator=rng)
    return torch.cos(x @ frequency + phase)


FEATURES = {
    "coordinates": lambda x: x,  # a cosine sees their direction alone: no centre
    "coordinates_and_one": lambda x: torch.cat([x, torch.ones(len(x), 1)], dim=1),  # and the distance to it
    "fourier": fourier,
}


def rarity(x: torch.Tensor) -> torch.Tensor:
    """One over the share of the samples in each point's cluster, (N, 2) -> (N,) >= 1.

    The distance that an ideal feature map would give: it knows the clusters and sees nothing else.
    """
    nearest = torch.cdist(x, clusters()[0]).argmin(1)
    return len(x) / torch.bincount(nearest)[nearest].to(x.dtype)


def measures(x: torch.Tensor, reward: Reward) -> dict[str, float]:
    """Mean reward, rewarded clusters covered (0 to 5), share of the samples in the central cluster."""
    distance, nearest = torch.cdist(x, rewarded()).min(1)
    inside = distance < 3 * SPREAD
    shares = torch.bincount(nearest[inside], minlength=RING // 2 + 1) / len(x)
    return {
        "reward": reward(x).mean().item(),
        "modes": float((shares >= COVERED).sum()),
        "central_share": shares[-1].item(),
    }
