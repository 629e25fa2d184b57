"""The clipped policy loss and the KL to a reference, per row; callers sum and divide."""

from __future__ import annotations

import torch

from methods.base import Batch


def clipped_policy_loss(
    log_ratio: torch.Tensor, advantages: torch.Tensor, clip_range: float, advantage_clip: float
) -> torch.Tensor:
    """max(-A rho, -A clip(rho, 1 - eps, 1 + eps)) per row (arXiv 2512.24138, Eq. 2; 2505.05470, Eq. 5).

    Args:
        log_ratio: log rho, (B,).
        advantages: (B,), clipped to +-``advantage_clip`` here.

    Returns:
        (B,); the policy loss is its mean.
    """
    a = advantages.clamp(-advantage_clip, advantage_clip)
    ratio = log_ratio.exp()
    return torch.maximum(-a * ratio, -a * ratio.clamp(1 - clip_range, 1 + clip_range))


def policy_term(
    log_ratio: torch.Tensor,
    batch: Batch,
    clip_range: float,
    advantage_clip: float,
    weights: torch.Tensor | None = None,
) -> tuple[torch.Tensor, dict[str, float]]:
    """A micro-batch's share of the mean clipped loss over the rows of its gradient step, and what is logged.

    Logged, all as shares of the whole step that add up over micro-batches: ``ratio_mean``;
    ``ratio_deviation``, the mean of |rho - 1|; ``clipped_share`` of the rows whose ratio left
    [1 - eps, 1 + eps], and ``clipped_share_step_<k>``, the part of it that denoising step k contributes.

    Args:
        log_ratio: log rho, (B,).
        weights: (B,), scale the rows; None leaves them as they are.
    """
    per_row = clipped_policy_loss(log_ratio, batch.advantages, clip_range, advantage_clip)
    loss = (per_row if weights is None else per_row * weights).sum() / batch.rows
    ratio = log_ratio.detach().exp()
    deviation = (ratio - 1).abs()
    outside = deviation > clip_range
    logged = {
        "policy_loss": loss.item(),
        "ratio_mean": ratio.sum().item() / batch.rows,
        "ratio_deviation": deviation.sum().item() / batch.rows,
        "clipped_share": outside.sum().item() / batch.rows,
    }
    for step, count in zip(*batch.step[outside.cpu()].unique(return_counts=True), strict=True):
        logged[f"clipped_share_step_{step}"] = count.item() / batch.rows
    return loss, logged


def gaussian_kl(mean: torch.Tensor, reference_mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """(mu - mu_ref)^2 / (2 s^2), mean over non-batch dimensions, (B,).

    With Flow-GRPO's ``std`` (without sqrt(-dt)) this is -dt times the true KL per latent dimension.
    """
    return ((mean - reference_mean) ** 2 / (2 * std**2)).flatten(1).mean(1)


def gated_kl(
    kl: torch.Tensor, gate: torch.Tensor, rows: int, gated_rows: int, official_code: bool = False
) -> torch.Tensor:
    """Sum of gate * KL over all rows (paper) or over the gated rows only (official code); scalar.

    Args:
        kl: (B,), zero or anything finite where not gated.
        gate: bool (B,).
        rows, gated_rows: counts of the whole gradient step. With no gated row the term is 0.
    """
    total = torch.where(gate, kl, torch.zeros_like(kl)).sum()
    return total / (max(gated_rows, 1) if official_code else rows)
