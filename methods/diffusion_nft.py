"""DiffusionNFT: RL on the forward process, without likelihoods (arXiv 2509.16117, Eq. 5).

With the optimality r in [0, 1], the data-collecting old policy v_old and guidance strength beta,

    v+ = (1 - beta) v_old + beta v_theta,    v- = (1 + beta) v_old - beta v_theta,
    L  = r ||x0(v+) - x0||^2 / w+  +  (1 - r) ||x0(v-) - x0||^2 / w-,    x0(v) = x_t - t v.

w is the prediction's own mean absolute error, without gradient (their "adaptive loss weighting").
Images come from an ODE under the old policy, which follows the policy by a moving average. The released
code (NVlabs/DiffusionNFT) solves it by dpm2 and shuffles the noise levels t for every image; here it is the
Euler method, and the images of an update share a random set of levels. GARDO's components fit in unchanged
(arXiv 2512.24138, Table 3); KL-free is ``beta`` = 0.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from pydantic import Field

from methods.base import Method
from methods.gardo import Regularisation, RegularisationConfig
from methods.maths.advantages import Normalisation
from methods.maths.latent_size import KLThreshold
from methods.maths.velocity import MIN_WEIGHT, velocity_kl


def optimality(advantages: torch.Tensor, advantage_clip: float) -> torch.Tensor:
    """r = 1/2 + clip(A, +-c) / (2 c), (B,) in [0, 1] (NVlabs/DiffusionNFT ``train_nft_sd3.py``)."""
    return 0.5 + advantages.clamp(-advantage_clip, advantage_clip) / (2 * advantage_clip)


def denoising_error(
    velocity: torch.Tensor, x_t: torch.Tensor, t: torch.Tensor, x0: torch.Tensor
) -> torch.Tensor:
    """Mean squared error of x_t - t v against x0 over its mean absolute error, per row, (B,)."""
    error = x_t - t.reshape(-1, *[1] * (x_t.dim() - 1)) * velocity - x0
    weight = error.detach().abs().flatten(1).mean(1).clamp(min=MIN_WEIGHT)
    return error.square().flatten(1).mean(1) / weight


def diffusion_nft_loss(
    velocity: torch.Tensor,
    old_velocity: torch.Tensor,
    x0: torch.Tensor,
    noise: torch.Tensor,
    t: torch.Tensor,
    advantages: torch.Tensor,
    beta: float,
    advantage_clip: float,
) -> torch.Tensor:
    """Policy loss per row, (B,); scaled by ``advantage_clip`` / ``beta`` as released.

    Args:
        velocity, old_velocity: of the policy and of the policy that made ``x0``, (B, ...).
        x0, noise: clean latent and fresh noise, (B, ...); x_t = (1 - t) x0 + t noise.
        t: noise share in (0, 1), (B,).
        advantages: (B,).
        beta: > 0.
    """
    r = optimality(advantages, advantage_clip)
    column = t.reshape(-1, *[1] * (x0.dim() - 1))
    x_t = (1 - column) * x0 + column * noise
    positive = denoising_error(beta * velocity + (1 - beta) * old_velocity, x_t, t, x0)
    negative = denoising_error((1 + beta) * old_velocity - beta * velocity, x_t, t, x0)
    return (r * positive + (1 - r) * negative) * advantage_clip / beta


class DiffusionNFTConfig(RegularisationConfig):
    beta: float = Field(1e-4, ge=0, description="KL coefficient")
    advantage_normalisation: Normalisation = "global_std"
    gated: bool = False
    adaptive_reference: bool = False
    kl_threshold: KLThreshold = 0.015  # of an error of velocities, hundreds of times Flow-GRPO's KL
    diversity: bool = False
    unflagged = "all"

    guidance_strength: float = Field(1.0, gt=0, description="beta of arXiv 2509.16117, Eq. 5")
    old_decay_start: int = Field(0, ge=0, description="updates before the old policy's decay starts to grow")
    old_decay_rate: float = Field(1e-3, ge=0, description="growth of the decay per update")
    old_decay_max: float = Field(0.5, ge=0, lt=1, description="0: the old policy is the policy")

    def needs(self):
        return replace(super().needs(), process="forward")


class DiffusionNFT(Method):
    name = "diffusion_nft"
    Config = DiffusionNFTConfig

    def __init__(self, config, latent_dimensions):
        super().__init__(config, latent_dimensions)
        self.regularisation = Regularisation(self.config)

    def prepare(self, rollout):
        return self.regularisation.prepare(rollout)

    def loss(self, batch):
        c = self.config
        rows = diffusion_nft_loss(
            batch.velocity,
            batch.old_velocity,
            batch.x0,
            batch.noise,
            batch.t,
            batch.advantages,
            c.guidance_strength,
            c.advantage_clip,
        )
        policy, kl = rows.sum() / batch.rows, None
        if batch.reference_velocity is not None:
            kl = velocity_kl(batch.velocity[batch.reference_rows], batch.reference_velocity)
        return self.regularisation.loss(policy, kl, batch, {"policy_loss": policy.item()})

    def after_update(self, steering):
        return self.regularisation.after_update(steering)

    def old_policy_decay(self, updates):
        c = self.config
        return min(max(updates - c.old_decay_start, 0) * c.old_decay_rate, c.old_decay_max)

    def state_dict(self):
        return self.regularisation.state_dict()

    def load_state_dict(self, state):
        self.regularisation.load_state_dict(state)
