"""Attention over short sequences on a processor, where torch's kernel is slow."""

from __future__ import annotations

import torch


def attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """softmax(q k^T / sqrt(D)) v for (..., L, D), the softmax in float32.

    For 30 tokens in bf16 that takes a third of the time of torch's fused kernel, a tenth with the backward
    pass. The fused kernel's gradient is slow there, and torch's softmax in bf16 where the length is no
    multiple of 32.
    """
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    return torch.softmax(scores, -1, dtype=torch.float32).to(value.dtype) @ value


def rms_norm(x: torch.Tensor, norm: torch.nn.Module | None) -> torch.Tensor:
    """x / rms(x) * weight over the last axis, or ``x`` where there is no norm; the root in float32."""
    if norm is None:
        return x
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    scale = torch.rsqrt(length.square() / x.shape[-1] + norm.eps)
    return x * (scale * norm.weight).to(x.dtype)


class ShortAttention:
    """A diffusers attention processor for SD3's and FLUX's joint attention and FLUX's single stream."""

    def __call__(
        self,
        attn: torch.nn.Module,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: None = None,
        image_rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor | None]:
        """Attention output (B, L, D) of the image and of the text, or of the single stream.

        Args:
            hidden_states: (B, L, D) of the image, or of text and image where they are one stream.
            encoder_hidden_states: (B, L, D) of the text. What it attends to is not computed (None) where the
                layer says that nobody asks for it, as SD3's last does.
            image_rotary_emb: cosine and sine (L, D / heads) of FLUX's positions, the text's first.
        """

        def per_head(x: torch.Tensor, norm: torch.nn.Module | None = None) -> torch.Tensor:
            return rms_norm(x.unflatten(-1, (attn.heads, -1)), norm)

        def merged(x: torch.Tensor) -> torch.Tensor:
            return x.transpose(1, 2).flatten(2)

        x, text = hidden_states, encoder_hidden_states
        queries = [per_head(attn.to_q(x), attn.norm_q)]
        keys, values = [per_head(attn.to_k(x), attn.norm_k)], [per_head(attn.to_v(x))]
        if text is not None:
            if not attn.context_pre_only:
                queries.insert(0, per_head(attn.add_q_proj(text), attn.norm_added_q))
            keys.insert(0, per_head(attn.add_k_proj(text), attn.norm_added_k))
            values.insert(0, per_head(attn.add_v_proj(text)))
        query, key, value = (torch.cat(parts, dim=1) for parts in (queries, keys, values))
        if image_rotary_emb is not None:
            from diffusers.models.embeddings import apply_rotary_emb

            query, key = (apply_rotary_emb(x, image_rotary_emb, sequence_dim=1) for x in (query, key))
        out = attention(*(x.transpose(1, 2) for x in (query, key, value)))
        if text is None:
            return merged(out) if attn.pre_only else attn.to_out[0](merged(out))
        of_text, of_image = out.tensor_split([out.shape[2] - x.shape[1]], dim=2)
        image = attn.to_out[0](merged(of_image))
        return image, None if attn.context_pre_only else attn.to_add_out(merged(of_text))


class ShortCosmosAttention:
    """A diffusers attention processor for Cosmos's self- and cross-attention."""

    def __call__(
        self,
        attn: torch.nn.Module,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: None = None,
        image_rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Attention output (B, L, D) of the clip.

        Args:
            hidden_states: (B, L, D) of the clip.
            encoder_hidden_states: (B, M, D') of the text; None where the clip attends to itself.
            image_rotary_emb: cosine and sine (L, D / heads) of the clip's positions.
        """
        attended = hidden_states if encoder_hidden_states is None else encoder_hidden_states

        def per_head(x: torch.Tensor) -> torch.Tensor:
            return x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)

        query = rms_norm(per_head(attn.to_q(hidden_states)), attn.norm_q)
        key = rms_norm(per_head(attn.to_k(attended)), attn.norm_k)
        if image_rotary_emb is not None:
            query, key = (_rotated(x, *image_rotary_emb) for x in (query, key))
        out = attention(query, key, per_head(attn.to_v(attended)))
        return attn.to_out[0](out.transpose(1, 2).flatten(2))


def _rotated(x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """Rotary positions of (B, heads, L, D), a channel paired with that half of D further on."""
    first, second = x.chunk(2, dim=-1)
    return x * cosine.to(x.dtype) + torch.cat([-second, first], dim=-1) * sine.to(x.dtype)


__all__ = ["ShortAttention", "ShortCosmosAttention", "attention", "rms_norm"]
