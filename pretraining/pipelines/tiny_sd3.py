"""``tiny-sd3``: a real ``StableDiffusion3Pipeline`` out of small parts.

T5 is left out, which the pipeline class supports; it then appends one block of zero embeddings whose
length is ``max_sequence_length`` (1 in the config of the tiny base model).
"""

from __future__ import annotations

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from pretraining.pipelines import data
from pretraining.pipelines.recipe import Recipe, Stage
from pretraining.pipelines.tokenizers import build_clip_tokenizer, token_ids

MAX_TOKENS = 13  # begin, at most eleven tokens of caption, end
TEXT_WIDTH = 64
TEXT_LAYERS = (3, 2)  # the pipeline reads the layer before the last one
TRANSFORMER = dict(
    sample_size=8,
    patch_size=2,
    in_channels=8,
    out_channels=8,
    num_layers=4,
    attention_head_dim=32,
    num_attention_heads=4,
    caption_projection_dim=128,
    joint_attention_dim=2 * TEXT_WIDTH,
    pooled_projection_dim=2 * TEXT_WIDTH,
    pos_embed_max_size=4,
    qk_norm="rms_norm",  # as in SD3.5
)


def clip_config(tokenizer: CLIPTokenizer, layers: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        projection_dim=TEXT_WIDTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


class TinySD3(Recipe):
    name = "tiny-sd3"
    stages = (
        Stage(data.EVERYTHING, scenes=60_000, data_seed=1, steps=7000, learning_rate=1e-3, seed=0),
        # Text is learnt sooner than counting; the second stage evens them out. It stops early: a model that
        # has learnt all its size holds leaves RL nothing to gain in an hour.
        Stage(
            data.MOSTLY_OBJECTS,
            scenes=60_000,
            data_seed=11,
            steps=5000,
            learning_rate=8e-4,
            seed=1,
            stop=2000,
        ),
    )

    def build(self, captions, vae):
        tokenizer = build_clip_tokenizer(captions, MAX_TOKENS)
        encoders = [CLIPTextModelWithProjection(clip_config(tokenizer, layers)) for layers in TEXT_LAYERS]
        return StableDiffusion3Pipeline(
            transformer=SD3Transformer2DModel(**TRANSFORMER),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
            vae=vae,
            text_encoder=encoders[0],
            tokenizer=tokenizer,
            text_encoder_2=encoders[1],
            tokenizer_2=tokenizer,
            text_encoder_3=None,
            tokenizer_3=None,
        )

    def trained(self):
        return [self.pipeline.transformer, self.pipeline.text_encoder, self.pipeline.text_encoder_2]

    def token_ids(self, captions):
        return (token_ids(self.pipeline.tokenizer, captions),)

    def velocity(self, x, sigma, ids):
        encoders = (self.pipeline.text_encoder, self.pipeline.text_encoder_2)
        outputs = [encoder(ids[0], output_hidden_states=True) for encoder in encoders]
        tokens = torch.cat([o.hidden_states[-2] for o in outputs], dim=-1)
        return self.pipeline.transformer(
            hidden_states=x,
            timestep=sigma * 1000,
            encoder_hidden_states=F.pad(tokens, (0, 0, 0, 1)),
            pooled_projections=torch.cat([o.text_embeds for o in outputs], dim=-1),
            return_dict=False,
        )[0]
