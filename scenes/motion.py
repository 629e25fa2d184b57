"""The world that moves: prompts drawn as short clips, seeded.

An item of a prompt (``scenes.prompts``) that moves has the key ``motion``, a dict with

- ``kind``: "move", "bounce" or "still";
- ``direction``: of a move, one of ``DIRECTIONS``; of a bounce, one of ``BOUNCES``;
- ``speed``: of a move, where the caption names it: "slowly" or "quickly".

All objects of an item move alike. A bounce ends where it began, with its turn in the middle of the clip.
"""

from __future__ import annotations

import random

import numpy as np

from scenes.renderer import MARGIN, apart, background, paint, shape_alpha, to_bytes
from scenes.vocabulary import COLOURS, IMAGE_SIZE

FRAMES, FRAMES_PER_SECOND = 9, 8
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}  # y points down
BOUNCES = {"up and down": (0, -1), "from side to side": (1, 0)}
TRAVEL = {"slowly": (3.5, 5.5), None: (7.5, 12.0), "quickly": (14.0, 18.0)}  # pixels from first to last frame
HOP = (6.0, 10.0)  # pixels from the ends of a bounce to its turn
RADIUS = {1: (3.5, 5.5), 2: (3.0, 4.4), 3: (2.8, 3.6)}  # half a bounding box, by number of objects
TIMES = np.linspace(0, 1, FRAMES)


def offsets(motion: dict, travel: float) -> np.ndarray:
    """Where an object is in each frame, from where it is in the first, (F, 2) in pixels as (x, y)."""
    if motion["kind"] == "still":
        return np.zeros((FRAMES, 2))
    if motion["kind"] == "bounce":
        return travel * np.sin(np.pi * TIMES)[:, None] * np.array(BOUNCES[motion["direction"]])
    return travel * TIMES[:, None] * np.array(DIRECTIONS[motion["direction"]])


def travels(motion: dict) -> tuple[float, float]:
    """Least and greatest travel in pixels of an object that moves so."""
    if motion["kind"] == "still":
        return (0.0, 0.0)
    return HOP if motion["kind"] == "bounce" else TRAVEL[motion.get("speed")]


def _place(moved: list[np.ndarray], rng: random.Random) -> list[tuple[float, float, float]]:
    """First centre and radius of every object, so that all stay inside and none touch in any frame.

    Args:
        moved: ``offsets`` of each.
    """
    low, high = RADIUS[len(moved)]
    while True:
        radius = rng.uniform(low, high)
        inside = radius + MARGIN
        placed: list[tuple[float, float, float]] = []
        tracks: list[np.ndarray] = []
        for offset in moved:
            first, last = inside - offset.min(0), IMAGE_SIZE - 1 - inside - offset.max(0)
            if (last < first).any():
                break
            x, y = (rng.uniform(*ends) for ends in zip(first, last, strict=True))
            track = offset + (x, y)
            if not all(_apart(track, other, radius) for other in tracks):
                break
            placed.append((x, y, radius))
            tracks.append(track)
        if len(placed) == len(moved):
            return placed


def _apart(first: np.ndarray, second: np.ndarray, radius: float) -> bool:
    """Whether boxes of one radius keep clear of each other in every frame; centres (F, 2)."""
    boxes = (((x, y, radius), (u, v, radius)) for (x, y), (u, v) in zip(first, second, strict=True))
    return all(apart(one, [other]) for one, other in boxes)


def render_clip(prompt: dict, seed: int) -> np.ndarray:
    """Draw one prompt. Returns uint8 (F, H, W, 3); the same prompt and seed give the same pixels."""
    rng = random.Random(f"{prompt['prompt']}|{seed}")
    wall = background(prompt, rng)
    free = rng.sample(sorted(COLOURS), len(prompt["include"]))
    objects = []
    for item, color in zip(prompt["include"], free, strict=True):
        moved = offsets(item["motion"], rng.uniform(*travels(item["motion"])))
        objects += [(item["class"], COLOURS[item.get("color") or color], moved)] * item["count"]
    placed = _place([moved for *_, moved in objects], rng)
    clip = []
    for frame in range(FRAMES):
        image = wall
        for (shape, color, moved), (x, y, radius) in zip(objects, placed, strict=True):
            dx, dy = moved[frame]
            image = paint(image, shape_alpha(shape, x + dx, y + dy, radius), color)
        clip.append(to_bytes(image))
    return np.stack(clip)
