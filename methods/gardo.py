"""GARDO (arXiv 2512.24138): KL gated to uncertain samples, adaptive reference, diversity-aware advantage.

L = mean_i,t [ clipped policy loss with A_i shaped by diversity + beta 1[U_i high] KL(pi_theta || pi_ref) ]

Where the paper and its public code (tinnerhrhe/GARDO at 1cc77fb) differ, a field chooses the reading.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field

from methods.advantages import Normalisation, Reading, diversity_aware, group_advantages
from methods.base import Method, MethodConfig, Needs, Prepared
from methods.diversity import nearest_distance
from methods.gate import GateShareController, gate, uncertainty
from methods.policy_loss import gated_kl, gaussian_kl, policy_term


class GARDOConfig(MethodConfig):
    beta: float = Field(0.04, gt=0, description="KL coefficient")
    advantage_normalisation: Normalisation = "none"
    clip_range: float = Field(1e-4, gt=0)
    advantage_clip: float = Field(5.0, gt=0)

    gated: bool = Field(True, description="False: KL on all samples")
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


class GARDO(Method):
    name = "gardo"
    Config = GARDOConfig

    def __init__(self, config, latent_dimensions):
        super().__init__(config, latent_dimensions)
        # The KL loss is a mean over latent dimensions; what the threshold bounds is the KL of an image.
        self.kl_threshold = config.kl_threshold * config.kl_threshold_dimensions / latent_dimensions
        self.controller = GateShareController(
            config.gate_share, config.gate_window, config.controller_reading
        )
        self.steps_since_reset = 0

    @property
    def needs(self):
        c = self.config
        return Needs(
            features=c.diversity,
            auxiliary=c.gated,
            reference="gated" if c.gated else "all",
            adaptive_reference=c.adaptive_reference,
        )

    def prepare(self, rollout):
        c = self.config
        advantages = group_advantages(rollout.rewards, rollout.groups, c.advantage_normalisation)
        metrics = {}
        if c.diversity:
            distance = nearest_distance(rollout.features, rollout.groups)
            advantages = diversity_aware(advantages, distance, rollout.groups, c.diversity_reading)
            metrics["nearest_distance"] = distance.mean().item()
        if not c.gated:
            return Prepared(advantages, torch.ones_like(advantages, dtype=torch.bool), metrics)
        u = uncertainty(rollout.rewards, rollout.auxiliary, c.uncertainty_reading)
        # The public code averages U over its non-negative part.
        seen = u if c.controller_reading == "paper" else u[u >= 0]
        share = self.controller.update(seen.mean().item() if len(seen) else 0.0)
        chosen = gate(u, share, c.gate_reading)
        metrics |= {"gate_k": share, "gated_share": chosen.double().mean().item()}
        return Prepared(advantages, chosen, metrics)

    def loss(self, batch):
        c = self.config
        log_ratio = batch.log_prob - batch.old_log_prob
        policy, metrics = policy_term(log_ratio, batch.advantages, batch.rows, c.clip_range, c.advantage_clip)
        if batch.reference_mean is None:
            return policy, {**metrics, "kl_loss": 0.0}
        rows = batch.reference_rows
        kl = gaussian_kl(batch.mean[rows], batch.reference_mean, _rows_of(batch.std, rows))
        term = gated_kl(kl, batch.gate[rows], batch.rows, batch.gated_rows, c.kl_average == "official_code")
        return policy + c.beta * term, {**metrics, "kl_loss": term.item()}

    def after_update(self, metrics):
        if not self.config.adaptive_reference:
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

    def load_state_dict(self, state):
        self.controller.load_state_dict(state["controller"])
        self.steps_since_reset = state["steps_since_reset"]


def _rows_of(std: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """``std`` may be one value for all rows or one per row."""
    return std[rows] if std.dim() and len(std) == len(rows) else std
