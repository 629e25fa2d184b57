"""``tiny-flux``: a real ``FluxPipeline`` out of small parts, with CLIP's pooled and T5's token embeddings.

Without guidance embedding, as FLUX.1-schnell: nothing here was distilled from a guided model. Its shape
keeps all shipped weights below 25 MB; for the same reason its files hold half precision.
"""

from __future__ import annotations

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from transformers import CLIPTextModel, T5Config, T5EncoderModel

from base_models.flux import pack, position_ids, unpack
from pretraining.pipelines import data
from pretraining.pipelines.recipe import Recipe, Stage
from pretraining.pipelines.tiny_sd3 import MAX_TOKENS, TEXT_WIDTH, clip_config
from pretraining.pipelines.tokenizers import build_clip_tokenizer, build_t5_tokenizer, token_ids

T5_TOKENS = 12  # at most eleven tokens of caption, end
TRANSFORMER = dict(
    patch_size=1,
    in_channels=32,  # 2 x 2 packed latents of 8 channels
    num_layers=2,
    num_single_layers=2,
    attention_head_dim=28,
    num_attention_heads=4,
    joint_attention_dim=TEXT_WIDTH,
    pooled_projection_dim=TEXT_WIDTH,
    axes_dims_rope=(4, 12, 12),
)


class TinyFlux(Recipe):
    name = "tiny-flux"
    stages = (Stage(data.EVERYTHING, scenes=60_000, data_seed=101, steps=6500, learning_rate=1e-3, seed=10),)
    batch = 64
    half_precision_files = True

    def build(self, captions, vae):
        tokenizer = build_clip_tokenizer(captions, MAX_TOKENS)
        tokenizer_2 = build_t5_tokenizer(captions, T5_TOKENS)
        text_encoder_2 = T5EncoderModel(
            T5Config(
                vocab_size=len(tokenizer_2),
                d_model=TEXT_WIDTH,
                d_kv=16,
                d_ff=2 * TEXT_WIDTH,
                num_layers=2,
                num_heads=4,
                feed_forward_proj="gated-gelu",  # as in T5 v1.1
                dropout_rate=0.0,
            )
        )
        return FluxPipeline(
            transformer=FluxTransformer2DModel(**TRANSFORMER),
            # FLUX.1-dev's; at 16 image tokens the shift mu is 0.46.
            scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
            vae=vae,
            text_encoder=CLIPTextModel(clip_config(tokenizer, layers=2)),
            tokenizer=tokenizer,
            text_encoder_2=text_encoder_2,
            tokenizer_2=tokenizer_2,
        )

    def trained(self):
        return [self.pipeline.transformer, self.pipeline.text_encoder, self.pipeline.text_encoder_2]

    def token_ids(self, captions):
        return tuple(token_ids(t, captions) for t in (self.pipeline.tokenizer, self.pipeline.tokenizer_2))

    def velocity(self, x, sigma, ids):
        tokens = self.pipeline.text_encoder_2(ids[1])[0]
        height, width = x.shape[-2:]
        velocity = self.pipeline.transformer(
            hidden_states=pack(x),
            timestep=sigma,
            encoder_hidden_states=tokens,
            pooled_projections=self.pipeline.text_encoder(ids[0]).pooler_output,
            txt_ids=torch.zeros(tokens.shape[1], 3),
            img_ids=position_ids(height, width, x.device),
            return_dict=False,
        )[0]
        return unpack(velocity, height, width)
