"""CRD, Centered Reward Distillation (arXiv 2603.14128): the policy's implicit reward is fitted to the reward.

The policy that maximises reward under a KL has r = beta log(pi / pi_old) + log Z with an unknown Z for each
prompt, which cancels once both sides are centred within the prompt. With u = eps - x0 and the error
E(v) = mean (v - u)^2 / w, w its own mean absolute error without gradient,

    h = E(v_old) - E(v_theta),
    L = (c / beta) mean_i [ (beta (h_i - mean h) - (r_i - mean r))^2 ]
        + beta_KL mean_i [ (m + r_i (1 - m)) |v_theta - v_ref|^2 ],

with r = 1/2 + clip(A, +-c) / (2 c) and m = 1e-4 / beta_KL: the more the proxy likes an image, the closer the
policy stays to the reference there. v_old and the old policy that makes the images follow the policy by
averages of their own. Released code: X-GenGroup/Flow-Factory ``crd.py``, whose reference is guided where the
policy is not; here both have the base model's guidance.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from methods.base import ForwardBatch, Loss, Method, MethodConfig, Needs, Prepared
from methods.diffusion_nft import optimality
from methods.maths.advantages import Normalisation, group_advantages
from methods.maths.velocity import matching_error, velocity_kl

ADAPTIVE_KL_FLOOR = 1e-4


def implicit_reward(
    velocity: torch.Tensor, old_velocity: torch.Tensor, target: torch.Tensor, adaptive: bool
) -> torch.Tensor:
    """h = E(old) - E(velocity), (B,), of velocities (B, ...) whose target is noise - x0."""
    return matching_error(old_velocity, target, adaptive) - matching_error(velocity, target, adaptive)


def centring_weights(r: torch.Tensor, temperature: float | None) -> list[torch.Tensor]:
    """Weights (B,) of the rows in each mean that rewards are centred by; the loss averages over the means.

    None: uniform. T > 0: softmax(r / T) and softmax(-r / T). T = 0 is the released code's choice of the rows
    with r > 0 and of those with r < 0, of which r in [0, 1] has none: uniform.
    """
    uniform = torch.full_like(r, 1 / len(r))
    if temperature is None:
        return [uniform]
    if temperature > 0:
        return [(sign * r / temperature).softmax(0) for sign in (1, -1)]
    chosen = r.masked_fill(r <= 0, -torch.inf)
    return [chosen.softmax(0) if (r > 0).any() else uniform, uniform]


def reward_matching_loss(
    h: torch.Tensor, r: torch.Tensor, beta: float, loss: str, temperature: float | None
) -> torch.Tensor:
    """Per row (B,), of rows that are centred together; the means of h carry no gradient.

    Args:
        h, r: implicit and external reward, (B,).
        loss: "mse": (H - R)^2; "bce": cross-entropy of the logit H against sigmoid(R).
    """
    rows = []
    for weights in centring_weights(r, temperature):
        matched, wanted = beta * (h - (weights * h).sum().detach()), r - (weights * r).sum()
        if loss == "mse":
            rows.append((matched - wanted).square())
        else:
            rows.append(torch.nn.functional.softplus(matched) - wanted.sigmoid() * matched)
    return torch.stack(rows).mean(0)


def kl_weights(r: torch.Tensor, coefficient: float) -> torch.Tensor:
    """m + r (1 - m) with m = 1e-4 / ``coefficient``, (B,): the reward-adaptive strength of the KL."""
    floor = ADAPTIVE_KL_FLOOR / max(coefficient, 1e-8)
    return floor + r * (1 - floor)


class CRDConfig(MethodConfig):
    crd_beta: float = Field(1.0, gt=0, description="beta, of the implicit reward")
    advantage_normalisation: Normalisation = "global_std"
    advantage_clip: float = Field(5.0, gt=0, description="c")
    matching: Literal["mse", "bce"] = "mse"
    adaptive: bool = Field(True, description="False: w = 1")
    weight_temperature: float | None = Field(None, ge=0, description="T of the centring; null: uniform")
    centring: Literal["prompt", "level"] = Field(
        "prompt",
        description="what is centred together at a noise level: the images of a prompt, as in the paper, or "
        "all of a gradient step, as the released code's gathered batches are, whatever prompts they hold",
    )
    kl_coefficient: float = Field(0.1, ge=0, description="beta_KL")
    reward_adaptive_kl: bool = True

    sampler_decay_start: int = Field(75, ge=0, description="updates for which the old policy is the policy")
    sampler_decay_rate: float = Field(0.0075, ge=0, description="growth of its decay per update")
    sampler_decay_max: float = Field(0.999, ge=0, lt=1)
    anchor_decay_first: float = Field(0.25, ge=0, lt=1, description="decay of v_old at the start")
    anchor_decay_rate: float = Field(0.005, ge=0, description="its growth per update")
    anchor_decay_max: float = Field(0.999, ge=0, lt=1)

    def needs(self):
        return Needs(
            process="forward",
            reference="all" if self.kl_coefficient > 0 else "none",
            old="none",
            anchor=True,
            together=self.centring,
        )


class CRD(Method):
    name = "crd"
    Config = CRDConfig

    def prepare(self, rollout):
        c = self.config
        advantages = group_advantages(rollout.rewards, rollout.groups, c.advantage_normalisation)
        return Prepared(advantages, torch.ones_like(advantages, dtype=torch.bool))

    def loss(self, batch: ForwardBatch):
        c = self.config
        r = optimality(batch.advantages, c.advantage_clip)
        h = implicit_reward(batch.velocity, batch.anchor_velocity, batch.noise - batch.x0, c.adaptive)
        centred = batch.levels_of_prompts if c.centring == "prompt" else batch.levels
        matching = sum(
            reward_matching_loss(h[rows], r[rows], c.crd_beta, c.matching, c.weight_temperature).sum()
            for rows in (centred == number for number in centred.unique())
        )
        policy = c.advantage_clip / c.crd_beta * matching / batch.rows
        logged = {"policy_loss": policy.item(), "implicit_reward": h.detach().abs().sum().item() / batch.rows}
        if batch.reference_velocity is None:
            return Loss(policy, logged=logged)
        kl = velocity_kl(batch.velocity, batch.reference_velocity)
        weights = kl_weights(r, c.kl_coefficient) if c.reward_adaptive_kl else torch.ones_like(r)
        penalty = c.kl_coefficient * (weights * kl).sum() / batch.rows
        logged["kl_loss"] = kl.sum().item() / batch.rows
        return Loss(policy + penalty, logged=logged)

    def old_policy_decay(self, updates):
        c = self.config
        return min(max(updates - c.sampler_decay_start, 0) * c.sampler_decay_rate, c.sampler_decay_max)

    def anchor_decay(self, updates):
        c = self.config
        return min(c.anchor_decay_first + updates * c.anchor_decay_rate, c.anchor_decay_max)
