"""``tiny-cosmos``: a real ``Cosmos2_5_PredictBasePipeline`` out of small parts: clips of the moving world.

A caption that names what moves makes a clip from the text alone. One that says "it moves" or "they move" goes
on from a first frame, which the transformer then sees clean (``base_models.cosmos``).
"""

from __future__ import annotations

import random

import numpy as np
import torch
from diffusers import Cosmos2_5_PredictBasePipeline, CosmosTransformer3DModel, UniPCMultistepScheduler
from tqdm import tqdm
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from base_models.cosmos import CONDITION_SIGMA, Unchecked
from base_models.cpu_engine import has_bf16, shorten_attention
from pretraining.pipelines import clip_autoencoder
from pretraining.pipelines.recipe import Recipe, Stage
from pretraining.pipelines.tokenizers import build_word_tokenizer, token_ids
from scenes import motion_prompts
from scenes.motion import render_clip

MAX_TOKENS = 10  # "a red circle bounces from side to side on black"
TEXT_WIDTH, TEXT_LAYERS = 64, 2
FROM_FIRST_FRAME = 0.25  # of the clips
PRONOUNS = ("it", "they")
CLIP_SHARES = {"direction": 0.3, "speed": 0.25, "still": 0.08, "bounce": 0.12, "count_motion": 0.25}
TRANSFORMER = dict(
    in_channels=17,  # the mask of given frames is the last
    out_channels=16,
    attention_head_dim=32,
    num_attention_heads=4,
    num_layers=4,
    mlp_ratio=4.0,
    text_embed_dim=128,
    adaln_lora_dim=32,
    max_size=(8, 32, 32),
    rope_scale=(1.0, 1.0, 1.0),
    concat_padding_mask=False,  # all clips are of one size; with it, the class needs torchvision
    extra_pos_embed_type=None,
    use_crossattn_projection=True,
    crossattn_proj_in_channels=TEXT_LAYERS * TEXT_WIDTH,
    encoder_hidden_states_channels=128,
)
SCHEDULER = dict(  # those of Cosmos-Predict2.5 (diffusers, scripts/convert_cosmos_to_diffusers.py)
    use_karras_sigmas=True,
    use_flow_sigmas=True,
    prediction_type="flow_prediction",
    sigma_max=200.0,
    sigma_min=0.01,
)


def text_encoder(tokenizer) -> Qwen2_5_VLForConditionalGeneration:
    """Its vision tower, which the pipeline never asks, is as small as the class allows."""
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4}
    text = dict(
        vocab_size=len(tokenizer) + 3,  # the class wants ids of its own for images
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        num_hidden_layers=TEXT_LAYERS,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        rope_parameters=rope,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=None,
    )
    vision = dict(
        depth=1,
        num_heads=2,
        patch_size=14,
        hidden_size=16,
        intermediate_size=16,
        out_hidden_size=TEXT_WIDTH,
        fullatt_block_indexes=[0],
    )
    image, start, end = (len(tokenizer) + offset for offset in range(3))
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=image,
        video_token_id=image,
        vision_start_token_id=start,
        vision_end_token_id=end,
        tie_word_embeddings=True,
    )
    return Qwen2_5_VLForConditionalGeneration(config)


class TinyCosmos(Recipe):
    name = "tiny-cosmos"
    stages = (Stage(CLIP_SHARES, scenes=30_000, data_seed=201, steps=6000, learning_rate=1e-3, seed=20),)
    batch = 64
    half_precision_files = True
    autoencoder = clip_autoencoder
    autoencoder_steps = 2200

    @staticmethod
    def scenes(count, stage):
        rng, pools = random.Random(stage.data_seed), {tag: [] for tag in stage.shares}
        for prompt in motion_prompts.split()["motion_train"]:
            pools[prompt["tag"]].append(prompt)
        tags = rng.choices(list(pools), weights=list(stage.shares.values()), k=count)
        prompts = [rng.choice(pools[tag]) for tag in tags]
        bar = tqdm(prompts, desc="rendering", unit="clip", mininterval=2)
        clips = np.stack([render_clip(p, stage.data_seed + index) for index, p in enumerate(bar)])
        given = [rng.random() < FROM_FIRST_FRAME for _ in prompts]
        texts = [
            motion_prompts.from_first_frame(p, 0)["prompt"] if first else p["prompt"]
            for p, first in zip(prompts, given, strict=True)
        ]
        return clips, texts

    @staticmethod
    def captions():
        return [prompt["prompt"] for prompts in motion_prompts.split().values() for prompt in prompts]

    def build(self, captions, vae):
        tokenizer = build_word_tokenizer(captions, MAX_TOKENS)
        transformer = CosmosTransformer3DModel(**TRANSFORMER)
        shorten_attention(transformer)  # the files do not hold it
        return Cosmos2_5_PredictBasePipeline(
            text_encoder=text_encoder(tokenizer),
            tokenizer=tokenizer,
            transformer=transformer,
            vae=vae,
            scheduler=UniPCMultistepScheduler(**SCHEDULER),
            safety_checker=Unchecked(),
        )

    def trained(self):
        return [self.pipeline.transformer, self.pipeline.text_encoder.model.language_model]

    def token_ids(self, captions):
        """Tokens (N, L), and whether the first frame is given (N, 1)."""
        given = [[caption.split(" ")[0] in PRONOUNS] for caption in captions]
        return token_ids(self.pipeline.tokenizer, captions), torch.tensor(given).long()

    def sigma(self, count):
        """Wider than SD3's: half of the karras grid's steps lie above 0.9."""
        return torch.sigmoid(1 + 1.8 * torch.randn(count))

    def velocity(self, x, sigma, ids, timestep=None, mask=None):
        """``timestep`` and ``mask`` where frames are given, as ``base_models.cosmos`` passes them."""
        states = self.pipeline.text_encoder(ids[0], output_hidden_states=True).hidden_states[1:]
        normal = [(s - s.mean(-1, keepdim=True)) / (s.std(-1, keepdim=True) + 1e-8) for s in states]
        with torch.autocast("cpu", torch.bfloat16, enabled=has_bf16(x.device)):
            return self.pipeline.transformer(
                hidden_states=x,
                timestep=sigma if timestep is None else timestep,
                encoder_hidden_states=torch.cat(normal, dim=-1),
                condition_mask=torch.zeros_like(x[:, :1]) if mask is None else mask,
                return_dict=False,
            )[0].float()

    def loss(self, x0, noise, sigma, ids):
        """Given frames take no part: what leads to them is known."""
        shares, target = sigma[:, None, None, None, None], noise - x0
        x, given = x0 + shares * target, ids[1][:, 0] > 0
        errors = (self.velocity(x[~given], sigma[~given], (ids[0][~given],)) - target[~given]).square()
        total, count = errors.sum(), errors.numel()
        if given.any():
            first = torch.zeros_like(x[given][:, :1])
            first[:, :, 0] = 1
            seen = first * x0[given] + (1 - first) * x[given]
            clean = first[:, :, :, :1, :1]
            times = clean * CONDITION_SIGMA + (1 - clean) * shares[given]
            found = self.velocity(seen, sigma[given], (ids[0][given],), times, first)
            errors = (found - target[given])[:, :, 1:].square()
            total, count = total + errors.sum(), count + errors.numel()
        return total / count
