"""GRPO for flow models (Flow-GRPO, arXiv 2505.05470), with an optional static KL.

L = mean_i,t [ max(-A rho, -A clip(rho, 1 +- eps)) + beta KL(pi_theta || pi_ref) ],  pi_ref = base model.

KL-free GRPO is beta = 0; DanceGRPO is another SDE (``training.sde``); both are YAML.
"""

from __future__ import annotations

import torch
from pydantic import Field

from methods.base import Loss, Method, MethodConfig, Needs, Prepared
from methods.maths.advantages import Normalisation, group_advantages
from methods.maths.latent_size import ClipRange
from methods.maths.policy_loss import gaussian_kl, policy_term
from methods.maths.reward_combination import Combination, combine


class GRPOConfig(MethodConfig):
    beta: float = Field(0.0, ge=0, description="KL coefficient")
    advantage_normalisation: Normalisation = "group_std"
    clip_range: ClipRange = 1e-4
    advantage_clip: float = Field(5.0, gt=0)
    reward: Combination = Field("proxy", description="how the auxiliary rewards enter the optimised one")
    proxy_weight: float = Field(0.8, ge=0, description="weighted: share of the proxy")
    auxiliary_weight: float = Field(0.1, ge=0, description="weighted: share of each auxiliary reward")

    def needs(self):
        return Needs(auxiliary=self.reward != "proxy", reference="all" if self.beta > 0 else "none")


class GRPO(Method):
    name = "grpo"
    Config = GRPOConfig

    def prepare(self, rollout):
        c = self.config
        weights = c.proxy_weight, c.auxiliary_weight
        reward = combine(rollout.rewards, rollout.auxiliary, c.reward, weights)
        advantages = group_advantages(reward, rollout.groups, c.advantage_normalisation)
        return Prepared(advantages, torch.ones_like(advantages, dtype=torch.bool))

    def policy(self, batch):
        """The policy term of the loss, and what is logged of it."""
        c = self.config
        log_ratio = batch.log_prob - batch.old_log_prob
        return policy_term(log_ratio, batch, c.clip_range, c.advantage_clip)

    def loss(self, batch):
        policy, logged = self.policy(batch)
        if batch.reference_mean is None:
            return Loss(policy, logged=logged)
        kl = gaussian_kl(batch.mean, batch.reference_mean, batch.std).sum() / batch.rows
        return Loss(policy + self.config.beta * kl, logged={**logged, "kl_loss": kl.item()})
