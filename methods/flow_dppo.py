"""Flow-DPPO (arXiv 2606.11025): a trust region in a denoising step's exact KL, in place of clipped ratios.

Two policies share a step's noise n, so their divergence is known for every row and needs no ratio:

    D = |mu - mu_old|^2 / (2 n^2),
    L = mean_i,t [ -A rho 1[not (D >= epsilon and ((rho > 1 and A > 0) or (rho < 1 and A < 0)))] ] + beta KL.

A row outside the region loses its gradient only where that would carry it further away. Neither ratio nor
advantage is clipped. Means over dimensions stand for the squared norm, as in the released code
(Tencent-Hunyuan/UniRL ``flowdppo.py``). In the first gradient step after a rollout D is 0,
and the loss is GRPO's.
"""

from __future__ import annotations

import torch
from pydantic import Field

from methods.base import Batch, Loss, Method, MethodConfig, Needs, Prepared
from methods.maths.advantages import Normalisation, group_advantages
from methods.maths.latent_size import TrustRegion
from methods.maths.policy_loss import gaussian_kl


def kept_rows(
    kl: torch.Tensor, ratio: torch.Tensor, advantages: torch.Tensor, threshold: float
) -> torch.Tensor:
    """Bool (B,): False where D (B,) has reached the threshold and -A rho pulls rho (B,) further from 1."""
    away = ((ratio > 1) & (advantages > 0)) | ((ratio < 1) & (advantages < 0))
    return ~((kl >= threshold) & away)


def masked_policy_loss(ratio: torch.Tensor, advantages: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """-A rho where ``kept``, else 0 whatever the ratio, infinite included, (B,)."""
    return torch.where(kept, -advantages * ratio, torch.zeros_like(ratio))


class FlowDPPOConfig(MethodConfig):
    beta: float = Field(0.0, ge=0, description="KL coefficient")
    advantage_normalisation: Normalisation = "group_std"
    trust_region: TrustRegion = 1e-5
    scale_kl: bool = Field(
        True, description="False: n = 1 in D (``add_kl_coefficient`` of the released code)"
    )

    def needs(self):
        return Needs(reference="all" if self.beta > 0 else "none")


class FlowDPPO(Method):
    name = "flow_dppo"
    Config = FlowDPPOConfig

    def prepare(self, rollout):
        c = self.config
        advantages = group_advantages(rollout.rewards, rollout.groups, c.advantage_normalisation)
        return Prepared(advantages, torch.ones_like(advantages, dtype=torch.bool))

    def loss(self, batch: Batch):
        c = self.config
        ratio = (batch.log_prob - batch.old_log_prob).exp()
        noise_std = batch.noise_std if c.scale_kl else torch.ones_like(batch.noise_std)
        with torch.no_grad():
            divergence = gaussian_kl(batch.mean, batch.old_mean, noise_std)
            kept = kept_rows(divergence, ratio, batch.advantages, c.trust_region)
            outside = divergence >= c.trust_region
        loss = masked_policy_loss(ratio, batch.advantages, kept).sum() / batch.rows
        logged = {
            "policy_loss": loss.item(),
            "ratio_mean": ratio.sum().item() / batch.rows,
            "ratio_deviation": (ratio - 1).abs().sum().item() / batch.rows,
            "divergence": divergence.sum().item() / batch.rows,
            "outside_share": outside.sum().item() / batch.rows,
            "masked_share": (~kept).sum().item() / batch.rows,
        }
        if batch.reference_mean is None:
            return Loss(loss, logged=logged)
        kl = gaussian_kl(batch.mean, batch.reference_mean, batch.std).sum() / batch.rows
        return Loss(loss + c.beta * kl, logged={**logged, "kl_loss": kl.item()})
