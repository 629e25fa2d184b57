"""What the scorers can do on scenes they have not seen."""

from __future__ import annotations

import random

import torch
from torch import nn
from torch.nn import functional as F

from pretraining.scorers import data
from pretraining.scorers.corruptions import FAMILIES, corrupt
from rewards.networks import TOKENIZER, in_chunks

HELD_OUT_SEED = 9_000_000
CLEAR = (0.6, 1.0)  # severities at which nobody doubts which image is the corrupted one


def _score(model: nn.Module, sees_text: bool, images: torch.Tensor, captions: list[str]) -> torch.Tensor:
    return in_chunks(model, images, TOKENIZER(captions)) if sees_text else in_chunks(model, images)


def ranking_report(model: nn.Module, sees_text: bool, n: int = 2000, seed: int = HELD_OUT_SEED) -> dict:
    """Shares of held-out pairs in which the better one has the higher score.

    Keys: ``clean_over_corrupted_<family>`` (severity 0.6 to 1, one or two operations), ``mild_<family>``
    (0.2 to 0.6), ``right_over_wrong`` with one attribute changed, each attribute as likely as it is in
    the captions, ``right_over_<attribute>``, and ``right_over_other``: a random caption that cannot hold.
    """
    stored, prompts = data.scenes(n, seed)
    images, captions = data.to_float(stored), [prompt["prompt"] for prompt in prompts]
    generator, rng = torch.Generator().manual_seed(seed), random.Random(seed)
    clean = _score(model, sees_text, images, captions)
    result = {}
    for family in FAMILIES:
        for key, (low, high) in (("clean_over_corrupted", CLEAR), ("mild", (0.2, 0.6))):
            severity = low + (high - low) * torch.rand(n, generator=generator)
            bad = _score(model, sees_text, corrupt(images, severity, family, generator), captions)
            result[f"{key}_{family}"] = (clean > bad).double().mean().item()
    if not sees_text:
        return result
    won: dict[str, list[bool]] = {}
    choices = [data.edits(caption) for caption in captions]
    for attribute in sorted({a for choice in choices for a in choice}):
        rows = [i for i, choice in enumerate(choices) if attribute in choice]
        wrong = [rng.choice(choices[i][attribute]) for i in rows]
        won[attribute] = (clean[rows] > _score(model, True, images[rows], wrong)).tolist()
        result[f"right_over_{attribute}"] = sum(won[attribute]) / len(rows)
    everything = [value for values in won.values() for value in values]
    result["right_over_wrong"] = sum(everything) / len(everything)
    other = captions[1:] + captions[:1]
    agree = data.Captions(captions).may_agree(torch.arange(n))
    different = ~agree[torch.arange(n), torch.arange(n).roll(-1)]
    result["right_over_other"] = (
        (clean > _score(model, True, images, other))[different].double().mean().item()
    )
    return result


def encoder_report(model: nn.Module, n: int = 512, seed: int = HELD_OUT_SEED) -> dict:
    """Mean cosine distances, and how many mildly corrupted scenes have themselves as nearest clean one."""
    stored, prompts = data.scenes(n, seed)
    twins = data.render_all(prompts, seed + n)
    images, generator = data.to_float(stored), torch.Generator().manual_seed(seed)
    features = F.normalize(in_chunks(model, images), dim=-1)
    same_prompt = F.normalize(in_chunks(model, data.to_float(twins)), dim=-1)
    result = {
        "distance_same_prompt": (1 - (features * same_prompt).sum(1)).mean().item(),
        "distance_other_prompt": (1 - features @ features.T).sum().item() / (n * (n - 1)),
    }
    for family in FAMILIES:
        seen = corrupt(images, torch.full((n,), 0.3), family, generator)
        similarity = F.normalize(in_chunks(model, seen), dim=-1) @ features.T
        result[f"retrieval_{family}"] = (similarity.argmax(1) == torch.arange(n)).double().mean().item()
        result[f"distance_corrupted_{family}"] = (1 - similarity.diagonal()).mean().item()
    return result
