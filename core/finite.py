"""Numbers that are none: what is broken is never a result."""

from __future__ import annotations

from collections.abc import Mapping

import torch


class NotFinite(ValueError):
    """A tensor of a run holds infinities or NaN; says which, and where."""


def check_finite(tensors: Mapping[str, torch.Tensor], where: str) -> None:
    """Raise ``NotFinite`` for the first tensor of these, by name, that holds an infinity or NaN."""
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            share = (~tensor.isfinite()).float().mean().item()
            raise NotFinite(
                f"{where}: {name} is not finite ({share:.1%} of its {tensor.numel()} values): the policy is "
                "broken and gives no result; a smaller learning_rate may keep it whole"
            )
