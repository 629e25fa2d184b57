"""GARDO's three components (arXiv 2512.24138), apart from the policy loss that they regularise.

Gated KL, adaptive reference and diversity-aware advantages fit GRPO and DiffusionNFT alike. Where the
paper and its public code (tinnerhrhe/GARDO at 1cc77fb) differ, a field chooses the reading.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field

from methods.advantages import Normalisation, Reading, diversity_aware, group_advantages
from methods.base import Method, MethodConfig, Needs, Prepared, Rollout
from methods.diversity import nearest_distance
from methods.gate import GateShareController, gate, uncertainty
from methods.policy_loss import gated_kl


class RegularisationConfig(MethodConfig):
    beta: float = Field(0.04, ge=0, description="KL coefficient")
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

    adaptive_reference: bool = Field(True, description="False: the reference stays the base model")
    kl_threshold: float = Field(1e-4, gt=0, description="epsilon_KL: reset when the KL loss exceeds it")
    kl_threshold_dimensions: int = Field(65536, ge=1, description="latent size the threshold was stated for")
    reset_after: int = Field(100, ge=1, description="m: reset after this many gradient steps")

    diversity: bool = Field(True, description="False: plain advantages")
    diversity_reading: Reading = "paper"


class Regularisation:
    """Gate, reference clock and advantage shaping of one run."""

    def __init__(self, config: RegularisationConfig, latent_dimensions: int):
        self.config = config
        # The KL loss is a mean over latent dimensions; what the threshold bounds is the KL of an image.
        self.kl_threshold = config.kl_threshold * config.kl_threshold_dimensions / latent_dimensions
        self.controller = GateShareController(
            config.gate_share, config.gate_window, config.controller_reading
        )
        self.steps_since_reset = 0

    def needs(self, **more) -> Needs:
        c = self.config
        drop = c.gated and c.uncertain == "drop"
        penalised = c.beta > 0 and not drop
        return Needs(
            features=c.diversity,
            auxiliary=drop or (c.gated and penalised),
            reference="none" if not penalised else "gated" if c.gated else "all",
            adaptive_reference=c.adaptive_reference and penalised,
            **more,
        )

    def prepare(self, rollout: Rollout) -> Prepared:
        c = self.config
        advantages = group_advantages(rollout.rewards, rollout.groups, c.advantage_normalisation)
        metrics = {}
        if c.diversity:
            distance = nearest_distance(rollout.features, rollout.groups)
            advantages = diversity_aware(advantages, distance, rollout.groups, c.diversity_reading)
            metrics["nearest_distance"] = distance.mean().item()
        if not c.gated or (c.beta == 0 and c.uncertain == "penalise"):
            return Prepared(advantages, torch.ones_like(advantages, dtype=torch.bool), metrics)
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
        return Prepared(advantages, chosen, metrics)

    def after_update(self, metrics: dict[str, float]) -> bool:
        """True when the reference must become the policy."""
        if not self.needs().adaptive_reference:
            return False
        self.steps_since_reset += 1
        reset = (
            metrics.get("kl_loss", 0.0) > self.kl_threshold
            or self.steps_since_reset >= self.config.reset_after
        )
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


class RegularisedMethod(Method):
    """A method whose advantages, gate and reference are GARDO's; what remains to it is the loss."""

    def __init__(self, config: RegularisationConfig, latent_dimensions: int):
        super().__init__(config, latent_dimensions)
        self.regularisation = Regularisation(config, latent_dimensions)

    @property
    def needs(self):
        return self.regularisation.needs()

    def prepare(self, rollout):
        return self.regularisation.prepare(rollout)

    def add_kl(self, policy: torch.Tensor, metrics: dict[str, float], kl: torch.Tensor, batch):
        """The loss with beta times the gated KL, and what is logged; ``kl``: of the reference rows."""
        c, gate = self.config, batch.gate[batch.reference_rows]
        term = gated_kl(kl, gate, batch.rows, batch.gated_rows, c.kl_average == "official_code")
        return policy + c.beta * term, {**metrics, "kl_loss": term.item()}

    def after_update(self, metrics):
        return self.regularisation.after_update(metrics)

    def state_dict(self):
        return self.regularisation.state_dict()

    def load_state_dict(self, state):
        self.regularisation.load_state_dict(state)
