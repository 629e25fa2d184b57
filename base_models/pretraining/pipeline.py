"""Assemble a real ``StableDiffusion3Pipeline`` out of small parts: tokenizers, text encoders, transformer.

T5 is left out, which the pipeline class supports; it then appends one block of zero embeddings whose
length is ``max_sequence_length`` (1 in the config of the tiny base model).
"""

from __future__ import annotations

import json
import string

from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

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


def build_tokenizer(captions: list[str]) -> CLIPTokenizer:
    """A CLIP tokenizer whose merges make one token of every word of the world; codes stay letter + digit."""
    words = sorted({w for c in captions for w in c.lower().split() if '"' not in w})
    trainer = trainers.BpeTrainer(
        vocab_size=100_000,
        initial_alphabet=sorted(string.printable.strip()),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.pre_tokenizer = pre_tokenizers.Whitespace()
    bpe.train_from_iterator(words, trainer)
    characters = sorted(set(string.ascii_lowercase + string.digits + string.punctuation))
    merges = [tuple(m) for m in json.loads(bpe.to_str())["model"]["merges"]]
    tokens = ["<|startoftext|>", "<|endoftext|>", "<|pad|>"]
    tokens += characters + [c + "</w>" for c in characters] + [a + b for a, b in merges]
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocab, merges=merges, pad_token="<|pad|>", model_max_length=MAX_TOKENS)


def build_text_encoder(tokenizer: CLIPTokenizer, layers: int) -> CLIPTextModelWithProjection:
    return CLIPTextModelWithProjection(
        CLIPTextConfig(
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
    )


def build_pipeline(captions: list[str], vae: AutoencoderKL) -> StableDiffusion3Pipeline:
    """Untrained text encoders and transformer around a trained autoencoder."""
    tokenizer = build_tokenizer(captions)
    return StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(**TRANSFORMER),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
        vae=vae,
        text_encoder=build_text_encoder(tokenizer, TEXT_LAYERS[0]),
        tokenizer=tokenizer,
        text_encoder_2=build_text_encoder(tokenizer, TEXT_LAYERS[1]),
        tokenizer_2=tokenizer,
        text_encoder_3=None,
        tokenizer_3=None,
    )
