"""Attention over short sequences in bf16, where torch's kernels for processors are slow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F

torchs_attention = F.scaled_dot_product_attention


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """softmax(q k^T / sqrt(D)) v for (..., L, D), the softmax in float32. Arguments are those of
    ``scaled_dot_product_attention``, which does the work where one of the later ones is used."""
    if attn_mask is not None or dropout_p or is_causal or scale is not None or enable_gqa:
        return torchs_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    return torch.softmax(scores, -1, dtype=torch.float32).to(value.dtype) @ value


@contextmanager
def short_attention() -> Iterator[None]:
    """Inside, ``F.scaled_dot_product_attention`` is ``attention``, wherever diffusers calls it.

    For 30 tokens in bf16 that takes a third of the fused kernel's time, a tenth with the backward pass. Its
    gradient is slow there, and torch's softmax in bf16 where the length is no multiple of 32. The name is
    replaced because a ``TorchFunctionMode`` is asked about every call, which costs 3 % of an iteration.
    """
    F.scaled_dot_product_attention = attention
    try:
        yield
    finally:
        F.scaled_dot_product_attention = torchs_attention


__all__ = ["attention", "short_attention"]
