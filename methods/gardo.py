"""GARDO (arXiv 2512.24138): KL gated to uncertain samples, adaptive reference, diversity-aware advantage.

L = mean_i,t [ clipped policy loss with A_i shaped by diversity + beta 1[U_i high] KL(pi_theta || pi_ref) ]

``Regularisation`` holds the three components, which fit GRPO and DiffusionNFT alike. Where the paper and its
public code (tinnerhrhe/GARDO at 1cc77fb) differ, a field chooses the reading.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field

from methods.base import Batch, ForwardBatch, Loss, Method, MethodConfig, Needs, Prepared, Rollout
from methods.maths.advantages import Normalisation, Reading, diversity_aware, group_advantages
from methods.maths.diversity import nearest_distance
from methods.maths.gate import GateShareController, gate, uncertainty
from methods.maths.latent_size import ClipRange, KLThreshold
from methods.maths.official_code import Unflagged, dealt_kl
from methods.maths.policy_loss import gated_kl, gaussian_kl, policy_term

ZERO = 1e-6  # an advantage up to the rounding of a group's mean


class RegularisationConfig(MethodConfig):
    beta: float = Field(0.04, ge=0, description="KL coefficient; 0 leaves the shaped advantages alone")
    advantage_normalisation: Normalisation = "none"
    advantage_clip: float = Field(5.0, gt=0)

    gated: bool = Field(True, description="False: KL on all samples")
    uncertain: Literal["penalise", "drop"] = Field(
        "penalise", description="drop: gated samples leave the gradient, and there is no KL"
    )
    gate_choice: Literal["uncertainty", "random"] = Field(
        "uncertainty",
        description="random: as many samples, drawn by lot; a control of what the choice carries",
    )
    gate_share: float = Field(0.1, gt=0, le=1, description="initial k")
    gate_window: int = Field(20, ge=1, description="W, in batches")
    uncertainty_reading: Reading = "paper"
    gate_reading: Reading = "paper"
    controller_reading: Reading = "paper"
    kl_average: Reading = "paper"
    kl_micro_batch: int = Field(
        9, ge=1, description="rows of a micro-batch of the public code, over which its KL is averaged"
    )
    unflagged: ClassVar[Unflagged] = "zero"  # what one without a gated row counts there

    adaptive_reference: bool = Field(True, description="False: the reference stays the base model")
    kl_threshold: KLThreshold = 1e-4
    reset_after: int = Field(100, ge=1, description="m: reset after this many gradient steps")

    diversity: bool = Field(True, description="False: plain advantages")
    diversity_reading: Reading = "paper"
    zero_advantages: Reading = Field(
        "paper",
        description="official_code: images without an advantage, as those of a group of equal rewards, are "
        "not trained on and not counted, so that the KL of the others weighs more",
    )

    def needs(self):
        drop = self.gated and self.uncertain == "drop"
        penalised = self.beta > 0 and not drop
        gated_alone = self.gated and (self.kl_average == "paper" or self.unflagged == "zero")
        return Needs(
            features=self.diversity,
            auxiliary=drop or (self.gated and penalised),
            reference="none" if not penalised else "gated" if gated_alone else "all",
            adaptive_reference=self.adaptive_reference and penalised,
        )


class Regularisation:
    """Gate, reference clock and advantage shaping of one run."""

    def __init__(self, config: RegularisationConfig):
        """``config``: with the thresholds of the latent at hand, as ``Method.config`` has them."""
        self.config = config
        self.controller = GateShareController(
            config.gate_share, config.gate_window, config.controller_reading
        )
        self.steps_since_reset = 0

    def prepare(self, rollout: Rollout) -> Prepared:
        c = self.config
        advantages = group_advantages(rollout.rewards, rollout.groups, c.advantage_normalisation)
        metrics = {}
        if c.diversity:
            distance = nearest_distance(rollout.features, rollout.groups)
            advantages = diversity_aware(advantages, distance, rollout.groups, c.diversity_reading)
            metrics["nearest_distance"] = distance.mean().item()
        trained = None
        if c.zero_advantages == "official_code" and (advantages.abs() > ZERO).any():
            trained = advantages.abs() > ZERO
            metrics["trained_share"] = trained.double().mean().item()
        if not c.gated or (c.beta == 0 and c.uncertain == "penalise"):
            every = torch.ones_like(advantages, dtype=torch.bool)
            return Prepared(advantages, every, metrics, trained)
        u = uncertainty(rollout.rewards, rollout.auxiliary, c.uncertainty_reading)
        # The public code averages U over its non-negative part.
        seen = u if c.controller_reading == "paper" else u[u >= 0]
        share = self.controller.update(seen.mean().item() if len(seen) else 0.0)
        chosen = gate(u, share, c.gate_reading)
        if c.gate_choice == "random":
            chosen = chosen[torch.randperm(len(chosen), generator=rollout.generator)]
        if c.uncertain == "drop":
            advantages = torch.where(chosen, torch.zeros_like(advantages), advantages)
        metrics |= {"gate_k": share, "gated_share": chosen.double().mean().item()}
        return Prepared(advantages, chosen, metrics, trained)

    def loss(
        self,
        policy: torch.Tensor,
        kl: torch.Tensor | None,
        batch: Batch | ForwardBatch,
        logged: dict[str, float],
    ) -> Loss:
        """``policy`` + beta x gated KL, steered by that KL.

        Args:
            policy: the policy term, scalar, of which ``logged`` is logged.
            kl: of each reference row; None where the batch has none.
        """
        if kl is None:
            return Loss(policy, 0.0, {**logged, "kl_loss": 0.0})
        c, chosen = self.config, batch.gate[batch.reference_rows]
        counts = batch.rows, batch.gated_rows
        if c.kl_average == "paper":
            term = gated_kl(kl, chosen, *counts)
        else:
            term = dealt_kl(kl, chosen, *counts, c.kl_micro_batch, c.unflagged)
        return Loss(policy + c.beta * term, term.item(), {**logged, "kl_loss": term.item()})

    def after_update(self, kl: float) -> bool:
        """True when the reference must become the policy."""
        if not self.config.needs().adaptive_reference:
            return False
        self.steps_since_reset += 1
        reset = kl > self.config.kl_threshold or self.steps_since_reset >= self.config.reset_after
        if reset:
            self.steps_since_reset = 0
        return reset

    def state_dict(self) -> dict[str, Any]:
        return {
            "controller": self.controller.state_dict(),
            "steps_since_reset": self.steps_since_reset,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.controller.load_state_dict(state["controller"])
        self.steps_since_reset = state["steps_since_reset"]


class GARDOConfig(RegularisationConfig):
    clip_range: ClipRange = 1e-4


class GARDO(Method):
    name = "gardo"
    Config = GARDOConfig

    def __init__(self, config, latent_dimensions):
        super().__init__(config, latent_dimensions)
        self.regularisation = Regularisation(self.config)

    def prepare(self, rollout):
        return self.regularisation.prepare(rollout)

    def loss(self, batch):
        c = self.config
        log_ratio = batch.log_prob - batch.old_log_prob
        policy, logged = policy_term(log_ratio, batch, c.clip_range, c.advantage_clip)
        kl, rows = None, batch.reference_rows
        if batch.reference_mean is not None:
            kl = gaussian_kl(batch.mean[rows], batch.reference_mean, batch.std[rows])
        return self.regularisation.loss(policy, kl, batch, logged)

    def after_update(self, steering):
        return self.regularisation.after_update(steering)

    def state_dict(self):
        return self.regularisation.state_dict()

    def load_state_dict(self, state):
        self.regularisation.load_state_dict(state)
