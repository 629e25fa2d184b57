"""AWM, Advantage Weighted Matching (arXiv 2509.25050): the pre-training loss as likelihood.

The flow-matching error of a final image stands for its log-likelihood, so that policy gradients need no
stochastic sampler:

    log p = -w(t, |v_theta - u|^2),   u = eps - x0,   rho = exp(log p - log p_old),
    L = mean_i,t [ max(-A rho, -A clip(rho, 1 +- epsilon)) ] + beta |v - v_ref|^2 + beta_ema |v - v_ema|^2.

v_ema is an average that trails the policy by less than a step and damps the update. Released code:
scxue/advantage_weighted_matching ``train_sd3_awm.py``, whose exponent comes before the mean over noise levels
(``exp_first``), and X-GenGroup/Flow-Factory ``awm.py``.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from methods.base import ForwardBatch, Loss, Method, MethodConfig, Needs, Prepared
from methods.maths.advantages import Normalisation, group_advantages
from methods.maths.policy_loss import clipped_policy_loss
from methods.maths.velocity import matching_error, velocity_kl

Weighting = Literal["uniform", "t", "t_squared", "huber", "ghuber"]
ROUNDING = 1e-10


def weighted_log_prob(
    error: torch.Tensor, t: torch.Tensor, weighting: Weighting, power: float
) -> torch.Tensor:
    """log p (B,) of matching errors (B,) at noise shares ``t`` (B,).

    ``uniform``: -e; ``t``: -e t; ``t_squared``: -e t^2; ``huber``: -(sqrt(e + 1e-10) - 1e-5) t; ``ghuber``:
    -((e + 1e-10)^q - 1e-10^q) t / q with q = ``power``.
    """
    if weighting in ("uniform", "t", "t_squared"):
        return -error * t ** ("uniform", "t", "t_squared").index(weighting)
    if weighting == "huber":
        return -((error + ROUNDING).sqrt() - ROUNDING**0.5) * t
    return -((error + ROUNDING) ** power - ROUNDING**power) * t / power


def bounded_advantages(advantages: torch.Tensor, clip: float, maximum: float | None) -> torch.Tensor:
    """A clipped to +-``clip``, then scaled so that ``clip`` becomes ``maximum`` if given, (B,)."""
    return advantages.clamp(-clip, clip) * (1.0 if maximum is None else maximum / clip)


class AWMConfig(MethodConfig):
    advantage_normalisation: Normalisation = "global_std"
    weighting: Weighting = "ghuber"
    ghuber_power: float = Field(0.25, gt=0, description="q")
    ratio_clip: float = Field(1.0, gt=0, description="epsilon; 1 only keeps the ratio below 2")
    advantage_clip: float = Field(5.0, gt=0, description="advantages are clipped to +- this")
    advantage_max: float | None = Field(1.0, gt=0, description="what the clip becomes; null: itself")
    kl_coefficient: float = Field(3e-3, ge=0, description="beta, to the reference")
    ema_kl_coefficient: float = Field(1.0, ge=0, description="beta_ema")
    ema_decay_rate: float = Field(1e-3, ge=0, description="growth of the average's decay per update")
    ema_decay_max: float = Field(0.3, ge=0, lt=1)

    def needs(self):
        return Needs(
            process="forward",
            reference="all" if self.kl_coefficient > 0 else "none",
            old="policy",
            anchor=self.ema_kl_coefficient > 0,
        )


class AWM(Method):
    name = "awm"
    Config = AWMConfig

    def prepare(self, rollout):
        c = self.config
        advantages = group_advantages(rollout.rewards, rollout.groups, c.advantage_normalisation)
        return Prepared(advantages, torch.ones_like(advantages, dtype=torch.bool))

    def log_prob(self, velocity: torch.Tensor, batch: ForwardBatch) -> torch.Tensor:
        error = matching_error(velocity, batch.noise - batch.x0)
        return weighted_log_prob(error, batch.t, self.config.weighting, self.config.ghuber_power)

    def loss(self, batch):
        c = self.config
        advantages = bounded_advantages(batch.advantages, c.advantage_clip, c.advantage_max)
        log_ratio = self.log_prob(batch.velocity, batch) - self.log_prob(batch.old_velocity, batch)
        rows = clipped_policy_loss(log_ratio, advantages, c.ratio_clip, c.advantage_clip)
        loss = rows.sum() / batch.rows
        deviation = (log_ratio.detach().exp() - 1).abs()
        logged = {
            "policy_loss": loss.item(),
            "ratio_deviation": deviation.sum().item() / batch.rows,
            "clipped_share": (deviation > c.ratio_clip).sum().item() / batch.rows,
        }
        for name, weight, other in (
            ("kl_loss", c.kl_coefficient, batch.reference_velocity),
            ("ema_kl_loss", c.ema_kl_coefficient, batch.anchor_velocity),
        ):
            if other is not None:
                kl = velocity_kl(batch.velocity, other).sum() / batch.rows
                loss = loss + weight * kl
                logged[name] = kl.item()
        return Loss(loss, logged=logged)

    def anchor_decay(self, updates):
        return min(updates * self.config.ema_decay_rate, self.config.ema_decay_max)
