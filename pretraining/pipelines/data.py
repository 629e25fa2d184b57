"""The pre-training set: seeded scenes drawn from the train prompts (and a trace of ten and eleven)."""

from __future__ import annotations

import random

import numpy as np
from tqdm import tqdm

from scenes import prompts as prompt_sets
from scenes.composition import composition
from scenes.renderer import render

# Shares of tags. Ten and eleven objects are all but absent, as SD3.5-Medium's accuracy of 0.01 on them
# suggests (GARDO, arXiv 2512.24138, Table 2).
EVERYTHING = {
    "counting": 0.34,
    "text": 0.34,
    "single_object": 0.03,
    "two_object": 0.06,
    "colors": 0.05,
    "position": 0.09,
    "color_attr": 0.08,
    "ten_eleven": 0.01,
}
MOSTLY_OBJECTS = {
    "counting": 0.46,
    "text": 0.06,
    "single_object": 0.04,
    "two_object": 0.08,
    "colors": 0.06,
    "position": 0.15,
    "color_attr": 0.14,
    "ten_eleven": 0.01,
}


def training_prompts(n: int, seed: int, shares: dict[str, float]) -> list[dict]:
    """``n`` train prompts, tags drawn by ``shares``; no test prompt's composition is among them."""
    sets = prompt_sets.split()
    unseen = {composition(p) for p in sets["counting_test"]}
    pools: dict[str, list[dict]] = {tag: [] for tag in shares}
    for prompt in sets["geneval_train"]:
        pools[prompt["tag"]].append(prompt)
    pools["text"] = sets["ocr_train"]
    pools["ten_eleven"] = [p for p in prompt_sets.counting(10, 11) if composition(p) not in unseen]
    rng = random.Random(seed)
    tags = rng.choices(list(shares), weights=list(shares.values()), k=n)
    return [rng.choice(pools[tag]) for tag in tags]


def scenes(n: int, seed: int, shares: dict[str, float]) -> tuple[np.ndarray, list[str]]:
    """Images uint8 (n, H, W, 3) and their captions."""
    prompts = training_prompts(n, seed, shares)
    bar = tqdm(prompts, desc="rendering", unit="scene", mininterval=2)
    images = np.stack([render(p, seed + i) for i, p in enumerate(bar)])
    return images, [p["prompt"] for p in prompts]
