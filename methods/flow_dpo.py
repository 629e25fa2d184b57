"""Online Flow-DPO: preference optimisation on each rollout's best and worst image of a prompt.

Diffusion-DPO (arXiv 2311.12908) with velocities: for a pair that shares noise and noise level,

    r = -(beta / 2) (|v_theta - u|^2 - |v_ref - u|^2),   u = eps - x0,
    L = -log sigmoid(r_chosen - r_rejected).

The pairs are made as in yifan123/flow_grpo ``train_sd3_dpo.py`` and X-GenGroup/Flow-Factory ``dpo.py``, from
images of the policy itself; the reference is the frozen base model.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from methods.base import ForwardBatch, Loss, Method, MethodConfig, Needs, Prepared
from methods.maths.latent_size import PreferenceStrength
from methods.maths.velocity import matching_error

Ties = Literal["itself", "second_and_first"]


def preference_pairs(
    advantages: torch.Tensor, groups: torch.Tensor, ties: Ties
) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices of the chosen and of the rejected image of every group with at least two, by ascending group.

    The first maximum and the first minimum. A group of equal values pairs its first image with ``itself``
    (Flow-Factory), which teaches nothing, or prefers its second to its first (flow_grpo).

    Args:
        advantages, groups: (N,).
    """
    chosen, rejected = [], []
    for group in groups.unique():
        members = (groups == group).nonzero().squeeze(1)
        if len(members) < 2:
            continue
        values = advantages[members]
        best, worst = values.argmax(), values.argmin()
        if values[best] == values[worst]:
            best, worst = (1, 0) if ties == "second_and_first" else (0, 0)
        chosen.append(members[best])
        rejected.append(members[worst])
    none = torch.zeros(0, dtype=torch.long)
    return (torch.stack(chosen), torch.stack(rejected)) if chosen else (none, none)


def implicit_reward(error: torch.Tensor, reference_error: torch.Tensor, beta: float) -> torch.Tensor:
    """-(beta / 2) (error - reference error), (B,), of matching errors (B,)."""
    return -beta / 2 * (error - reference_error)


def preference_loss(logit: torch.Tensor) -> torch.Tensor:
    """-log sigmoid(logit), (P,), for logits of any size."""
    return torch.nn.functional.softplus(-logit)


class FlowDPOConfig(MethodConfig):
    beta: PreferenceStrength = 100.0
    ties: Ties = Field("itself", description="what a group of equal rewards is paired of")

    def needs(self):
        return Needs(process="forward", reference="all", old="none", together="prompt", shared_noise=True)


class FlowDPO(Method):
    name = "flow_dpo"
    Config = FlowDPOConfig

    def prepare(self, rollout):
        """Advantage 1 for the chosen image of a prompt, -1 for the rejected one; the others are not trained.

        An image paired with itself has 0, and stands beside another of its group, so as to count as a pair.
        """
        chosen, rejected = preference_pairs(rollout.rewards, rollout.groups, self.config.ties)
        sides = torch.zeros_like(rollout.rewards)
        sides[chosen] += 1
        sides[rejected] -= 1
        trained = sides != 0
        for image in chosen[chosen == rejected]:
            trained[(rollout.groups == rollout.groups[image]).nonzero()[:2]] = True
        metrics = {"pairs": float((chosen != rejected).sum())}
        return Prepared(sides, torch.ones_like(trained), metrics, trained)

    def loss(self, batch: ForwardBatch):
        target = batch.noise - batch.x0
        errors = (matching_error(v, target) for v in (batch.velocity, batch.reference_velocity))
        reward = implicit_reward(*errors, self.config.beta)
        pair = batch.levels_of_prompts
        logit = reward.new_zeros(int(pair.max()) + 1).index_add(0, pair, batch.advantages * reward)
        pairs = batch.rows / 2
        loss = preference_loss(logit).sum() / pairs
        logged = {
            "policy_loss": loss.item(),
            "implicit_accuracy": (logit > 0).sum().item() / pairs,
            "implicit_margin": logit.sum().item() / pairs,
        }
        return Loss(loss, logged=logged)
