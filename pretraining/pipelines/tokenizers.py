"""Tokenizers of the world's captions, of the classes the pipelines accept; one token per word."""

from __future__ import annotations

import json
import string

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer, PreTrainedTokenizerFast, T5Tokenizer


def _words(captions: list[str]) -> list[str]:
    """The words outside quotation marks; codes on signs are spelt."""
    return sorted({w for c in captions for w in c.lower().split() if '"' not in w})


def build_clip_tokenizer(captions: list[str], max_length: int) -> CLIPTokenizer:
    """A CLIP tokenizer whose merges make one token of every word of the world; codes stay letter + digit."""
    trainer = trainers.BpeTrainer(
        vocab_size=100_000,
        initial_alphabet=sorted(string.printable.strip()),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.pre_tokenizer = pre_tokenizers.Whitespace()
    bpe.train_from_iterator(_words(captions), trainer)
    characters = sorted(set(string.ascii_lowercase + string.digits + string.punctuation))
    merges = [tuple(m) for m in json.loads(bpe.to_str())["model"]["merges"]]
    tokens = ["<|startoftext|>", "<|endoftext|>", "<|pad|>"]
    tokens += characters + [c + "</w>" for c in characters] + [a + b for a, b in merges]
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocab, merges=merges, pad_token="<|pad|>", model_max_length=max_length)


def build_t5_tokenizer(captions: list[str], max_length: int) -> T5Tokenizer:
    """A T5 unigram tokenizer over the words of the world and single characters."""
    characters = sorted(set(string.ascii_letters + string.digits + string.punctuation))
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    # A word must beat its spelling: log-probabilities add up over pieces.
    vocab += [(f"▁{word}", -1.0) for word in _words(captions)] + [('▁"', -1.0), ("▁", -8.0)]
    vocab += [(character, -8.0) for character in characters]
    return T5Tokenizer(vocab=vocab, extra_ids=0, model_max_length=max_length)


USER_TURN = "{% for m in messages %}{% if m.role == 'user' %}{{ m.content[0].text }}{% endif %}{% endfor %}"


def build_word_tokenizer(captions: list[str], max_length: int) -> PreTrainedTokenizerFast:
    """Whole words alone. Its chat template is the user's turn, of which a pipeline makes the caption."""
    tokens = ["<pad>", "<unk>", *_words(captions)]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", unk_token="<unk>", model_max_length=max_length
    )
    tokenizer.chat_template = USER_TURN
    return tokenizer


def token_ids(tokenizer: CLIPTokenizer | T5Tokenizer | PreTrainedTokenizerFast, captions: list[str]):
    """Padded token ids, long (N, L). Raises ``ValueError`` where a caption does not fit."""
    length = tokenizer.model_max_length
    ids = tokenizer(captions, padding="max_length", max_length=length, return_tensors="pt").input_ids
    if ids.shape[1] > length:
        raise ValueError("a caption is longer than the tokenizer's model_max_length")
    return ids
