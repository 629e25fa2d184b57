"""Checkpoints of the classes of SD3.5-Medium, FLUX.1-dev and Cosmos-Predict2.5, small, untrained, on disk."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLWan,
    Cosmos2_5_PredictBasePipeline,
    CosmosTransformer3DModel,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    UniPCMultistepScheduler,
)
from transformers import (
    AutoTokenizer,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
)

from base_models.cosmos import Unchecked
from pretraining.pipelines.tokenizers import build_clip_tokenizer, build_t5_tokenizer
from tests.small_checkpoints import qwen2_5_vl, qwen_tokenizer

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


def save_cosmos(folder: Path) -> None:
    """Qwen2.5-VL, Wan 2.1's autoencoder and karras sigmas, as in Cosmos-Predict2.5-2B; without the channel of
    the padding mask, for which its transformer needs torchvision."""
    torch.manual_seed(0)
    words = folder.parent / f"{folder.name}_words"
    words.mkdir(parents=True)
    text_encoder = qwen2_5_vl(qwen_tokenizer(words))
    tokenizer = AutoTokenizer.from_pretrained(words)
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content[0].text }}<|im_end|>\n{% endfor %}"
    )
    transformer = CosmosTransformer3DModel(
        in_channels=17,
        out_channels=16,
        attention_head_dim=32,
        num_attention_heads=2,
        num_layers=2,
        mlp_ratio=2,
        text_embed_dim=48,
        adaln_lora_dim=16,
        max_size=(8, 32, 32),
        rope_scale=(1.0, 3.0, 3.0),
        concat_padding_mask=False,
        extra_pos_embed_type=None,
        use_crossattn_projection=True,
        crossattn_proj_in_channels=text_encoder.config.text_config.hidden_size * 2,
        encoder_hidden_states_channels=48,
    )
    _randomise(transformer)
    vae = AutoencoderKLWan(
        base_dim=8, z_dim=16, dim_mult=[1, 2, 4], num_res_blocks=1, temperal_downsample=[True, True]
    )
    schedule = {"use_karras_sigmas": True, "use_flow_sigmas": True, "sigma_max": 200.0, "sigma_min": 0.01}
    Cosmos2_5_PredictBasePipeline(
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        transformer=transformer,
        vae=vae,
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", **schedule),
        safety_checker=Unchecked(),
    ).save_pretrained(folder)
