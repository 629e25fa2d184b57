"""BLIP with cross-attention (ViT and BERT), from ImageReward's parameter names to transformers' classes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import BlipTextModel, BlipVisionModel

HEAD_WIDTH = 64  # of the vision transformer's attention, in every BLIP
_VISION = {
    "cls_token": "embeddings.class_embedding",
    "pos_embed": "embeddings.position_embedding",
    "patch_embed.proj.weight": "embeddings.patch_embedding.weight",
    "patch_embed.proj.bias": "embeddings.patch_embedding.bias",
    "norm.weight": "post_layernorm.weight",
    "norm.bias": "post_layernorm.bias",
}
_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)\.(weight|bias)")
_IN_BLOCK = {
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "attn.qkv": "self_attn.qkv",
    "attn.proj": "self_attn.projection",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


def part(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Entries below ``prefix``, without it."""
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def vision_model(state: dict[str, torch.Tensor]) -> BlipVisionModel:
    """The vision transformer; its sizes are read from the parameters' shapes."""
    from transformers import BlipVisionConfig, BlipVisionModel

    renamed = {}
    for key, value in state.items():
        match = _BLOCK.fullmatch(key)
        if match:
            layer, name, kind = match.groups()
            renamed[f"encoder.layers.{layer}.{_IN_BLOCK[name]}.{kind}"] = value
        else:
            renamed[_VISION[key]] = value
    width, _, patch, _ = state["patch_embed.proj.weight"].shape
    side = round((state["pos_embed"].shape[1] - 1) ** 0.5)  # patches per side
    config = BlipVisionConfig(
        hidden_size=width,
        intermediate_size=state["blocks.0.mlp.fc1.weight"].shape[0],
        num_hidden_layers=sum(key.endswith("norm1.weight") for key in state),
        num_attention_heads=width // HEAD_WIDTH,
        image_size=side * patch,
        patch_size=patch,
        layer_norm_eps=1e-6,
    )
    model = BlipVisionModel(config)
    model.load_state_dict(renamed)
    return model


def text_model(state: dict[str, torch.Tensor], config: dict, vision_width: int) -> BlipTextModel:
    """The text transformer that looks at the image. ``config`` is the content of ``med_config.json``."""
    from transformers import BlipTextConfig, BlipTextModel

    own = BlipTextConfig(
        vocab_size=config["vocab_size"],
        hidden_size=config["hidden_size"],
        encoder_hidden_size=vision_width,
        intermediate_size=config["intermediate_size"],
        num_hidden_layers=config["num_hidden_layers"],
        num_attention_heads=config["num_attention_heads"],
        max_position_embeddings=config["max_position_embeddings"],
        hidden_act=config["hidden_act"],
        layer_norm_eps=config["layer_norm_eps"],
    )
    model = BlipTextModel(own, add_pooling_layer=False)
    model.load_state_dict({key: value for key, value in state.items() if not key.endswith("position_ids")})
    return model
