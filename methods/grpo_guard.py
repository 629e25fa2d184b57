"""GRPO-Guard (arXiv 2510.22319): a log-ratio with mean 0 and equal spread at every denoising step.

With the noise n = s sqrt(-dt) of a step, moving its mean by d mu gives the log-ratio

    log rho = -|d mu|^2 / (2 n^2) + d mu . eps / n:

its mean is negative, so ratios above 1 + epsilon are rare and clipping never stops an over-optimised step.

    log rho' = n (log rho + |d mu|^2 / (2 n^2)),     L = mean_i,t [ clipped loss(rho') / (-dt) ] + beta KL

Means over dimensions stand for the squared norm, as in the released code (flow_grpo, GRPO-Guard script).
"""

from __future__ import annotations

import torch

from methods.grpo import GRPO
from methods.maths.policy_loss import policy_term


def normalised_log_ratio(
    log_ratio: torch.Tensor, mean: torch.Tensor, old_mean: torch.Tensor, noise_std: torch.Tensor
) -> torch.Tensor:
    """log rho' (B,) of log rho (B,), means (B, ...) and the step's noise (B,)."""
    drift = (mean - old_mean).square().flatten(1).mean(1) / (2 * noise_std**2)
    return noise_std * (log_ratio + drift)


class GRPOGuard(GRPO):
    name = "grpo_guard"

    def policy(self, batch):
        c = self.config
        ones = torch.ones_like(batch.log_prob)
        noise, std = (value.reshape(-1) * ones for value in (batch.noise_std, batch.std))
        log_ratio = batch.log_prob - batch.old_log_prob
        log_ratio = normalised_log_ratio(log_ratio, batch.mean, batch.old_mean, noise)
        inverse_dt = (std / noise) ** 2
        return policy_term(log_ratio, batch, c.clip_range, c.advantage_clip, inverse_dt)
