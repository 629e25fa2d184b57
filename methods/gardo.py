"""GARDO (arXiv 2512.24138): KL gated to uncertain samples, adaptive reference, diversity-aware advantage.

L = mean_i,t [ clipped policy loss with A_i shaped by diversity + beta 1[U_i high] KL(pi_theta || pi_ref) ]

The three components stand in ``methods/regularisation.py``.
"""

from __future__ import annotations

import torch
from pydantic import Field

from methods.policy_loss import gaussian_kl, policy_term
from methods.regularisation import RegularisationConfig, RegularisedMethod


class GARDOConfig(RegularisationConfig):
    beta: float = Field(0.04, ge=0, description="KL coefficient; 0 leaves the shaped advantages alone")
    clip_range: float = Field(1e-4, gt=0)


class GARDO(RegularisedMethod):
    name = "gardo"
    Config = GARDOConfig

    def loss(self, batch):
        c = self.config
        log_ratio = batch.log_prob - batch.old_log_prob
        policy, metrics = policy_term(log_ratio, batch, c.clip_range, c.advantage_clip)
        if batch.reference_mean is None:
            return policy, {**metrics, "kl_loss": 0.0}
        rows = batch.reference_rows
        kl = gaussian_kl(batch.mean[rows], batch.reference_mean, _rows_of(batch.std, rows))
        return self.add_kl(policy, metrics, kl, batch)


def _rows_of(std: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """``std`` may be one value for all rows or one per row."""
    return std[rows] if std.dim() and len(std) == len(rows) else std
