"""Which prompts an iteration trains on, and their embeddings."""

from __future__ import annotations

import random
from pathlib import Path

import torch

from base_models.base import BaseModel, Prompts
from scenes.prompts import read
from training.seeding import seed_of


class PromptSet:
    """Training prompts with embeddings computed once."""

    def __init__(self, path: Path, tag_weights: dict[str, float], model: BaseModel, batch: int = 256):
        self.prompts = read(path)
        self.by_tag: dict[str, list[int]] = {}
        for index, prompt in enumerate(self.prompts):
            self.by_tag.setdefault(prompt["tag"], []).append(index)
        self.tag_weights = tag_weights
        texts = [p["prompt"] for p in self.prompts]
        parts = [model.encode_prompts(texts[i : i + batch]) for i in range(0, len(texts), batch)]
        self.embeddings = Prompts(torch.cat([p.tokens for p in parts]), torch.cat([p.pooled for p in parts]))
        self.empty = model.encode_prompts([""]) if model.classifier_free_guidance else None

    def draw(self, count: int, seed: int, iteration: int) -> list[int]:
        """``count`` different prompt indices for one iteration, tags drawn by their weights."""
        rng = random.Random(seed_of("prompts", seed, iteration))
        if not self.tag_weights:
            return rng.sample(range(len(self.prompts)), count)
        tags, weights = zip(*self.tag_weights.items(), strict=True)
        chosen: list[int] = []
        while len(chosen) < count:
            index = rng.choice(self.by_tag[rng.choices(tags, weights)[0]])
            if index not in chosen:
                chosen.append(index)
        return chosen
