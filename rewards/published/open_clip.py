"""OpenCLIP's parameter names as those of transformers' ``CLIPModel``."""

from __future__ import annotations

import re

import torch

_DIRECT = {
    "logit_scale": "logit_scale",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
}
_PREFIXES = {
    "ln_final": "text_model.final_layer_norm",
    "visual.ln_pre": "vision_model.pre_layrnorm",  # the spelling is transformers'
    "visual.ln_post": "vision_model.post_layernorm",
}
_TRANSPOSED = {"text_projection": "text_projection.weight", "visual.proj": "visual_projection.weight"}
_IN_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_BLOCK = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+?)[._](weight|bias)")


def to_transformers(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """State dict of ``open_clip.CLIP`` -> state dict of ``transformers.CLIPModel``.

    Raises ``ValueError`` for a parameter that has no counterpart.
    """
    found: dict[str, torch.Tensor] = {}
    for key, value in state.items():
        prefix, _, kind = key.rpartition(".")
        if key in _DIRECT:
            found[_DIRECT[key]] = value
        elif key in _TRANSPOSED:
            found[_TRANSPOSED[key]] = value.T.contiguous()
        elif prefix in _PREFIXES:
            found[f"{_PREFIXES[prefix]}.{kind}"] = value
        elif match := _BLOCK.fullmatch(key):
            visual, layer, part, kind = match.groups()
            block = f"{'vision' if visual else 'text'}_model.encoder.layers.{layer}"
            if part == "attn.in_proj":  # queries, keys and values in one matrix
                for name, third in zip("qkv", value.chunk(3), strict=True):
                    found[f"{block}.self_attn.{name}_proj.{kind}"] = third
            else:
                found[f"{block}.{_IN_BLOCK[part]}.{kind}"] = value
        elif key != "attn_mask":  # a constant of the architecture
            raise ValueError(f"{key!r} is no parameter of an OpenCLIP model")
    return found
