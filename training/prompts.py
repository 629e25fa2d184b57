"""Which prompts an iteration trains on, and their embeddings."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import torch
from tqdm import tqdm

from base_models.base import BaseModel, Prompts
from scenes.prompts import read
from training.seeding import seed_of


def _room(count: int, like: torch.Tensor) -> torch.Tensor:
    """Room for ``count`` embeddings in a nameless file under the system's temporary folder.

    50,000 prompts of SD3.5 take 85 GB, more than a process may hold; the pages of a file can leave memory.
    """
    shape = (count, *like.shape[1:])
    with tempfile.NamedTemporaryFile() as file:
        size = torch.Size(shape).numel()
        return torch.from_file(file.name, shared=True, size=size, dtype=like.dtype).view(shape)


class PromptSet:
    """Training prompts with embeddings computed once."""

    def __init__(self, path: Path, tag_weights: dict[str, float], model: BaseModel, batch: int = 256):
        self.prompts = read(path)
        self.by_tag: dict[str, list[int]] = {}
        for index, prompt in enumerate(self.prompts):
            self.by_tag.setdefault(prompt["tag"], []).append(index)
        self.tag_weights = tag_weights
        texts = [p["prompt"] for p in self.prompts]
        starts = range(0, len(texts), batch)
        for start in tqdm(starts, desc="embedding prompts", unit="batch", delay=5):
            part = model.encode_prompts(texts[start : start + batch])
            if start == 0:
                self.embeddings = Prompts(_room(len(texts), part.tokens), _room(len(texts), part.pooled))
            self.embeddings.tokens[start : start + batch] = part.tokens
            self.embeddings.pooled[start : start + batch] = part.pooled
        self.empty = model.encode_prompts([""]) if model.classifier_free_guidance else None

    def draw(self, count: int, seed: int, iteration: int) -> list[int]:
        """``count`` different prompt indices for one iteration, tags drawn by their weights."""
        rng = random.Random(seed_of("prompts", seed, iteration))
        if not self.tag_weights:
            return rng.sample(range(len(self.prompts)), count)
        tags, weights = zip(*self.tag_weights.items(), strict=True)
        known = sum(len(self.by_tag[tag]) for tag, weight in self.tag_weights.items() if weight > 0)
        if count > known:
            raise ValueError(f"prompts_per_iteration is {count}, but the drawn tags have {known} prompts")
        chosen: list[int] = []
        while len(chosen) < count:
            index = rng.choice(self.by_tag[rng.choices(tags, weights)[0]])
            if index not in chosen:
                chosen.append(index)
        return chosen
