"""DDRL (arXiv 2512.04332): RL without an on-policy KL, anchored to data by the ordinary diffusion loss.

J = E_p_theta[ lambda((r - Z)/beta) ] - D_KL(p_data || p_theta);  in practice lambda is omitted, Z is the
group mean, the group standard deviation divides, and the forward KL is the flow-matching loss on data:

    L = clipped policy loss + data_beta * mean (v_theta(x_t, t) - (eps - x0))^2

Data are real images or samples of the frozen BASE model; samples of the current policy would be a
self-distillation loop. Where the released code (nvidia-cosmos/cosmos-rl) differs, a field says so.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from methods.base import Loss, Method, MethodConfig, Needs, Prepared
from methods.maths.advantages import Normalisation, group_advantages
from methods.maths.latent_size import ClipRange
from methods.maths.policy_loss import policy_term


class DDRLConfig(MethodConfig):
    data_beta: float = Field(0.01, gt=0, description="weight of the data term")
    advantage_normalisation: Normalisation = "group_std"
    clip_range: ClipRange = 1e-4
    advantage_clip: float = Field(5.0, gt=0)
    advantage_transform: Literal["none", "exponential"] = Field(
        "none", description="exponential: lambda(A) = -exp(-A), the theorem's form"
    )
    log_ratio: Literal["gaussian", "unnormalised"] = Field(
        "gaussian", description="unnormalised: as released, without division by 2 std^2"
    )
    data_noise: Literal["rollout", "fresh"] = Field(
        "rollout", description="rollout: the rollout's initial noise and sigma, as released"
    )

    def needs(self):
        return Needs(data=True, data_noise=self.data_noise)


def unnormalised_log_ratio(x_next: torch.Tensor, mean: torch.Tensor, old_mean: torch.Tensor) -> torch.Tensor:
    """-[(x - mu)^2 - (x - mu_old)^2], mean over non-batch dimensions, (B,) (cosmos-rl ``wfm_trainer.py``)."""
    return -((x_next - mean) ** 2 - (x_next - old_mean) ** 2).flatten(1).mean(1)


def data_loss(velocity: torch.Tensor, x0: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Flow-matching loss per row: mean (v - (eps - x0))^2, (M,)."""
    return (velocity - (noise - x0)).square().flatten(1).mean(1)


class DDRL(Method):
    name = "ddrl"
    Config = DDRLConfig

    def prepare(self, rollout):
        advantages = group_advantages(rollout.rewards, rollout.groups, self.config.advantage_normalisation)
        if self.config.advantage_transform == "exponential":
            advantages = -torch.exp(-advantages)  # the loss clips it
        return Prepared(advantages, torch.ones_like(advantages, dtype=torch.bool))

    def loss(self, batch):
        c = self.config
        if c.log_ratio == "unnormalised":
            log_ratio = unnormalised_log_ratio(batch.x_next, batch.mean, batch.old_mean)
        else:
            log_ratio = batch.log_prob - batch.old_log_prob
        policy, logged = policy_term(log_ratio, batch, c.clip_range, c.advantage_clip)
        data = data_loss(batch.data.velocity, batch.data.x0, batch.data.noise).sum() / batch.data_rows
        return Loss(policy + c.data_beta * data, logged={**logged, "data_loss": data.item()})
