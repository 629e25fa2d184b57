"""Checkpoints of the classes and with the parts of SD3.5-Medium and FLUX.1-dev, small, untrained, on disk."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from pretraining.pipelines.tokenizers import build_clip_tokenizer, build_t5_tokenizer

WORDS = ["a photo of three red circles and a blue square"]
TOKENS = 16


def _autoencoder() -> AutoencoderKL:
    """Eight-fold, sixteen channels, with the shift and scale of FLUX.1's."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8,) * 4,
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=4,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
        scaling_factor=0.3611,
        shift_factor=0.1159,
    )


def _clip(tokenizer, cls, width: int):
    return cls(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=TOKENS,
            projection_dim=width,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _t5(tokenizer, width: int) -> T5EncoderModel:
    config = T5Config(vocab_size=len(tokenizer), d_model=width, d_kv=8, d_ff=width, num_layers=2, num_heads=2)
    return T5EncoderModel(config)


def _randomise(transformer: torch.nn.Module) -> None:
    """Untrained transformers start with gates of zero: nothing would reach the output."""
    for parameter in transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.2 if parameter.dim() == 1 else parameter.shape[-1] ** -0.5)


def save_sd3(folder: Path) -> None:
    """CLIP twice and T5, dual attention and RMS norms as in SD3.5-Medium."""
    torch.manual_seed(0)
    clip, t5 = build_clip_tokenizer(WORDS, TOKENS), build_t5_tokenizer(WORDS, 64)
    transformer = SD3Transformer2DModel(
        sample_size=16,
        in_channels=16,
        out_channels=16,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=48,
        caption_projection_dim=32,
        pooled_projection_dim=16 + 24,
        pos_embed_max_size=64,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )
    _randomise(transformer)
    StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_autoencoder(),
        text_encoder=_clip(clip, CLIPTextModelWithProjection, 16),
        tokenizer=clip,
        text_encoder_2=_clip(clip, CLIPTextModelWithProjection, 24),
        tokenizer_2=clip,
        text_encoder_3=_t5(t5, 48),
        tokenizer_3=t5,
    ).save_pretrained(folder)


def save_flux(folder: Path) -> None:
    """CLIP and T5, a guidance embedding and dynamic shifting as in FLUX.1-dev."""
    torch.manual_seed(0)
    clip, t5 = build_clip_tokenizer(WORDS, TOKENS), build_t5_tokenizer(WORDS, 64)
    transformer = FluxTransformer2DModel(
        in_channels=64,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=48,
        pooled_projection_dim=16,
        guidance_embeds=True,
        axes_dims_rope=(4, 6, 6),
    )
    _randomise(transformer)
    FluxPipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=_autoencoder(),
        text_encoder=_clip(clip, CLIPTextModel, 16),
        tokenizer=clip,
        text_encoder_2=_t5(t5, 48),
        tokenizer_2=t5,
    ).save_pretrained(folder)
