"""GARDO's public code where it differs from its paper: the average of the KL, the reference's clock.

tinnerhrhe/GARDO at 1cc77fb, ``scripts/train_sd3_grpo_gardo.py`` and ``train_sd3_nft_gardo.py``.
"""

from __future__ import annotations

from typing import Literal

import torch

CLOCK = 15  # epochs without a reset after which the next one resets
Unflagged = Literal["zero", "all"]


def micro_batch_kl(
    kl: torch.Tensor, gate: torch.Tensor, micro_batch: torch.Tensor, unflagged: Unflagged
) -> torch.Tensor:
    """Mean KL of the flagged rows of each micro-batch, (M,) in the order of their numbers.

    The code logs the mean of these, compares it with the threshold, and by gradient accumulation penalises
    it. Where few rows are flagged most micro-batches have none, and zeros dilute the mean.

    Args:
        kl: (N,), of every row.
        gate: bool (N,), the flagged rows.
        micro_batch: long (N,), number of the micro-batch of each row; equally many rows in each.
        unflagged: what a micro-batch without a flagged row counts: ``zero`` (GRPO), or the mean of ``all``
            its rows (DiffusionNFT, where the line that would set zero is commented out).
    """
    found = []
    for number in micro_batch.unique():
        own = micro_batch == number
        flagged = own & gate
        if flagged.any():
            found.append(kl[flagged].mean())
        else:
            found.append(kl[own].mean() if unflagged == "all" else kl.new_zeros(()))
    return torch.stack(found)


def dealt_kl(
    kl: torch.Tensor, gate: torch.Tensor, rows: int, gated_rows: int, micro_batch: int, unflagged: Unflagged
) -> torch.Tensor:
    """The mean of ``micro_batch_kl`` that is expected where rows are dealt at random; scalar.

    With a share f of rows flagged, 1 - (1 - f)^m of the micro-batches of m rows have one. The expectation is
    a sum over rows, so it does not depend on how these are split here.

    Args:
        kl: (B,), zero or anything finite where a row does not count.
        gate: bool (B,), the flagged rows.
        rows, gated_rows: counts of the whole gradient step.
        micro_batch: rows of a micro-batch of the public code.
    """
    flagged = torch.where(gate, kl, torch.zeros_like(kl)).sum() / max(gated_rows, 1)
    with_one = 1 - (1 - gated_rows / rows) ** micro_batch
    if unflagged == "zero":
        return with_one * flagged
    others = torch.where(gate, torch.zeros_like(kl), kl).sum() / max(rows - gated_rows, 1)
    return with_one * flagged + (1 - with_one) * others


class ReferenceClock:
    """When the code copies the policy into the reference: at the start of an epoch, after its rollout.

    Epoch e resets where a KL of an earlier gradient step has passed the threshold, or where e is more than 15
    epochs after the last reset. ``nft`` moves the threshold as well: down by 0.01, at least 0.1, at a reset
    by the clock; at one within 5 epochs to 0.01 more, at most 0.05, which lowers the initial 0.15 to 0.05.
    """

    def __init__(self, variant: Literal["grpo", "nft"], threshold: float):
        self.variant, self.threshold = variant, threshold
        self.epoch, self.last, self.passed = -1, 0, False

    def start_epoch(self) -> bool:
        """True: the reference becomes the policy."""
        self.epoch += 1
        since = self.epoch - self.last
        if not (self.epoch and self.passed) and since <= CLOCK:
            return False
        if self.variant == "nft" and since > CLOCK:
            self.threshold = max(self.threshold - 0.01, 0.1)
        if self.variant == "nft" and since < 5:
            self.threshold = min(self.threshold + 0.01, 0.05)
        self.last, self.passed = self.epoch, False
        return True

    def after_step(self, kl: float) -> None:
        """The logged KL of a gradient step."""
        self.passed |= kl > self.threshold
