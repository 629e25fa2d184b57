"""GARDO's gate: which samples does the proxy praise far more than the auxiliary rewards do?

arXiv 2512.24138, Eq. 7 and Alg. 1 lines 12-14; ``official_code`` is tinnerhrhe/GARDO at 1cc77fb, whose
uncertainty has the opposite sign and whose percentile runs over the non-negative part only.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import torch

from methods.maths.advantages import Reading

ROUNDING = 1e-9


def win_rate(scores: torch.Tensor) -> torch.Tensor:
    """w(y_i) = (1/B) #{j : y_i > y_j}; ties win nothing. (..., B) -> (..., B) in [0, 1)."""
    return (scores[..., :, None] > scores[..., None, :]).to(torch.float64).mean(-1)


def descending_rank(scores: torch.Tensor) -> torch.Tensor:
    """Rank 1 for the highest score; equal scores are ranked in their order. (..., B) -> (..., B)."""
    order = scores.argsort(dim=-1, descending=True, stable=True)
    ranks = torch.arange(1, scores.shape[-1] + 1, device=scores.device).expand_as(order)
    return torch.empty_like(order).scatter_(-1, order, ranks).to(torch.float64)


def uncertainty(proxy: torch.Tensor, auxiliary: torch.Tensor, reading: Reading) -> torch.Tensor:
    """U_i (GARDO Eq. 7). High: the proxy likes the image more than the auxiliary rewards do.

    Args:
        proxy: (B,).
        auxiliary: (K, B).

    Returns:
        float64 (B,): in (-1, 1) as in the paper, in ranks for the official code.
    """
    measure = win_rate if reading == "paper" else descending_rank
    return measure(proxy) - measure(auxiliary).mean(0)


def gate(values: torch.Tensor, share: float, reading: Reading) -> torch.Tensor:
    """True where U lies strictly above the (1 - share) percentile, linear interpolation. (B,) -> bool (B,).

    ``official_code`` takes the percentile over U >= 0 only; without any, nothing is gated.
    """
    population = values if reading == "paper" else values[values >= 0]
    if not len(population):
        return torch.zeros_like(values, dtype=torch.bool)
    return values > torch.quantile(population, max(0.0, 1 - share))


class GateShareController:
    """The share k of gated samples follows the batch mean of U (GARDO section 4.1, Alg. 1).

    The mean above the window's maximum: k <- 1.1 k; below its minimum: k <- 0.9 k. ``paper``: k at most
    1, and the rule acts once the window is full. ``official_code``: k in [0.02, 0.2], from the second
    batch on. The mean joins the window after the rule.

    Win rates average to (B - 1) / 2B over a batch without ties, whatever the rewards, so as printed the rule
    answers to ties alone; differences of rounding must not move it.
    """

    def __init__(self, initial_share: float, window: int, reading: Reading):
        self.share = initial_share
        self.window: deque[float] = deque(maxlen=window)
        self.reading = reading
        self.low, self.high = (0.0, 1.0) if reading == "paper" else (0.02, 0.2)

    def update(self, batch_mean: float) -> float:
        """Returns the share to use for this batch."""
        full = len(self.window) == self.window.maxlen
        if self.window and (full or self.reading == "official_code"):
            above, below = batch_mean - max(self.window), min(self.window) - batch_mean
            factor = 1.1 if above > ROUNDING else 0.9 if below > ROUNDING else 1.0
            self.share = min(max(self.share * factor, self.low), self.high)
        self.window.append(batch_mean)
        return self.share

    def state_dict(self) -> dict[str, Any]:
        return {"share": self.share, "window": list(self.window)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.share = state["share"]
        self.window.clear()
        self.window.extend(state["window"])
