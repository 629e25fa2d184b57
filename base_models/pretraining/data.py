"""The pre-training set: seeded scenes drawn from the train prompts (and a trace of ten and eleven)."""

from __future__ import annotations

import random

import numpy as np
from tqdm import tqdm

from scenes import prompts as prompt_sets
from scenes.renderer import render

# Shares of the pre-training set. Counting and text are what the benchmark's tasks train; ten and
# eleven objects are all but absent, as SD3.5-Medium's 0.01 accuracy on them suggests (GARDO Table 2).
TAG_SHARES = {
    "counting": 0.34,
    "text": 0.34,
    "single_object": 0.03,
    "two_object": 0.06,
    "colors": 0.05,
    "position": 0.09,
    "color_attr": 0.08,
    "ten_eleven": 0.01,
}


def training_prompts(n: int, seed: int) -> list[dict]:
    """``n`` train prompts, tags drawn by ``TAG_SHARES``; no test prompt is among them."""
    sets = prompt_sets.split()
    unseen = {p["prompt"] for p in sets["counting_test"]}
    pools: dict[str, list[dict]] = {tag: [] for tag in TAG_SHARES}
    for prompt in sets["geneval_train"]:
        pools[prompt["tag"]].append(prompt)
    pools["text"] = sets["ocr_train"]
    pools["ten_eleven"] = [p for p in prompt_sets.counting(10, 11) if p["prompt"] not in unseen]
    rng = random.Random(seed)
    tags = rng.choices(list(TAG_SHARES), weights=list(TAG_SHARES.values()), k=n)
    return [rng.choice(pools[tag]) for tag in tags]


def scenes(n: int, seed: int) -> tuple[np.ndarray, list[str]]:
    """Images uint8 (n, H, W, 3) and their captions."""
    prompts = training_prompts(n, seed)
    images = np.stack([render(p, seed + i) for i, p in enumerate(tqdm(prompts, desc="rendering", unit="scene"))])
    return images, [p["prompt"] for p in prompts]
