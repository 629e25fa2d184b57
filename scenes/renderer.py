"""Draws a prompt as an image: seeded, antialiased, softly lit."""

from __future__ import annotations

import functools
import random

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from scenes.vocabulary import BACKGROUNDS, COLOURS, IMAGE_SIZE, SHAPES

_Y, _X = np.mgrid[0:IMAGE_SIZE, 0:IMAGE_SIZE].astype(np.float32)
MARGIN = 1.0
TEXT_SIZES = (15, 16, 17)
INK = (0.06, 0.06, 0.06)


def shape_alpha(shape: str, cx: float, cy: float, radius: float) -> np.ndarray:
    """Coverage in [0, 1] of each pixel by the shape, (H, W). ``radius`` is half the bounding box."""
    x, y = _X - cx, _Y - cy
    if shape == "circle":
        distance = np.sqrt(x * x + y * y) - radius
    elif shape == "square":
        distance = np.maximum(np.abs(x), np.abs(y)) - radius
    elif shape == "triangle":  # isosceles, apex up
        distance = np.maximum(y - radius, (2 * np.abs(x) - (y + radius)) / np.sqrt(5.0))
    else:
        raise ValueError(f"unknown shape {shape!r}; valid: {', '.join(SHAPES)}")
    return np.clip(0.5 - distance, 0.0, 1.0)


def _radius_range(total: int) -> tuple[float, float]:
    """Half-widths that let ``total`` objects fit without touching."""
    for limit, bounds in ((1, (4.5, 8.0)), (2, (4.0, 6.0)), (4, (3.2, 4.6)), (6, (2.8, 3.8))):
        if total <= limit:
            return bounds
    return (2.5, 3.1)


def apart(candidate, placed) -> bool:
    """Whether a box (x, y, half its side) keeps clear of all those placed."""
    x, y, r = candidate
    return all(max(abs(x - px), abs(y - py)) >= r + pr + 1.6 for px, py, pr in placed)


def _holds(relation: str, first, second) -> bool:
    dx, dy = first[0] - second[0], first[1] - second[1]
    along, across = {"left of": (-dx, dy), "right of": (dx, dy), "above": (-dy, dx), "below": (dy, dx)}[
        relation
    ]
    return along > abs(across) * 1.2


def _place(total: int, relation: tuple[str, int, int] | None, rng: random.Random):
    """Rejection sampling of ``total`` non-touching boxes that satisfy the relation, if there is one."""
    low, high = _radius_range(total)
    while True:
        placed: list[tuple[float, float, float]] = []
        common = rng.uniform(low, high)
        for _ in range(400):
            r = min(high, max(low, common + rng.uniform(-0.3, 0.3)))
            inside = r + MARGIN
            box = (
                rng.uniform(inside, IMAGE_SIZE - 1 - inside),
                rng.uniform(inside, IMAGE_SIZE - 1 - inside),
                r,
            )
            if apart(box, placed):
                placed.append(box)
                if len(placed) == total:
                    break
        if len(placed) == total and (
            relation is None or _holds(relation[0], placed[relation[1]], placed[relation[2]])
        ):
            return placed


def background(prompt: dict, rng: random.Random) -> np.ndarray:
    """A softly lit wall of the prompt's tone, or of any where it names none, float (H, W, 3)."""
    name = prompt.get("background") or rng.choice(sorted(BACKGROUNDS))
    slope_x, slope_y = rng.uniform(-0.03, 0.03), rng.uniform(-0.03, 0.03)
    half = (IMAGE_SIZE - 1) / 2
    light = BACKGROUNDS[name] + slope_x * (_X / half - 1) + slope_y * (_Y / half - 1)
    return np.repeat(light[..., None], 3, axis=2)


def paint(image: np.ndarray, alpha: np.ndarray, color) -> np.ndarray:
    """``color`` over the image (H, W, 3) where ``alpha`` (H, W) covers it."""
    return image * (1 - alpha[..., None]) + alpha[..., None] * np.asarray(color, dtype=np.float32)


def to_bytes(image: np.ndarray) -> np.ndarray:
    """Float (H, W, 3) in [0, 1] -> uint8."""
    return (np.clip(image, 0, 1) * 255).round().astype(np.uint8)


def _objects(prompt: dict) -> tuple[list[tuple[str, str | None]], tuple[str, int, int] | None]:
    """(shape, color or None) per object, and the relation as (name, index, index)."""
    objects, first_index, relation = [], [], None
    for item in prompt["include"]:
        first_index.append(len(objects))
        if "position" in item:
            name, other = item["position"]
            relation = (name, len(objects), first_index[other])
        objects += [(item["class"], item.get("color"))] * item["count"]
    return objects, relation


@functools.lru_cache(maxsize=4096)
def text_alpha(text: str, size: int) -> np.ndarray:
    """Coverage of the drawn text, cropped to its ink, (h, w) in [0, 1]."""
    font = ImageFont.load_default(size=size)
    canvas = Image.new("L", (4 * size, 3 * size), 0)
    ImageDraw.Draw(canvas).text((size // 2, size // 2), text, fill=255, font=font)
    return np.asarray(canvas.crop(canvas.getbbox()), dtype=np.float32) / 255.0


def sign_colour(name: str) -> np.ndarray:
    """Signs are pastel: half way from the colour to white, so that dark ink stays readable."""
    return 0.5 + 0.5 * np.asarray(COLOURS[name], dtype=np.float32)


def _render_sign(image: np.ndarray, sign: dict, rng: random.Random) -> np.ndarray:
    ink = text_alpha(sign["text"], rng.choice(TEXT_SIZES))
    height, width = ink.shape
    half_w, half_h = width / 2 + rng.uniform(2.0, 3.0), height / 2 + rng.uniform(2.0, 3.0)
    cx = IMAGE_SIZE / 2 - 0.5 + rng.uniform(-1.5, 1.5)
    cy = IMAGE_SIZE / 2 - 0.5 + rng.uniform(-3.0, 3.0)
    distance = np.maximum(np.abs(_X - cx) - half_w, np.abs(_Y - cy) - half_h)
    image = paint(image, np.clip(0.5 - distance, 0, 1), sign_colour(sign["color"]))
    top, left = round(cy - height / 2 + 0.5), round(cx - width / 2 + 0.5)
    top = min(max(top, 0), IMAGE_SIZE - height)
    left = min(max(left, 0), IMAGE_SIZE - width)
    alpha = np.zeros((IMAGE_SIZE, IMAGE_SIZE), dtype=np.float32)
    alpha[top : top + height, left : left + width] = ink
    return paint(image, alpha, INK)


def render(prompt: dict, seed: int) -> np.ndarray:
    """Draw one prompt. Returns uint8 (H, W, 3); the same prompt and seed give the same pixels."""
    rng = random.Random(f"{prompt['prompt']}|{seed}")
    image = background(prompt, rng)
    if "sign" in prompt:
        image = _render_sign(image, prompt["sign"], rng)
    else:
        objects, relation = _objects(prompt)
        # Objects of one include clause share their colour; clauses differ when left open.
        free = rng.sample(sorted(COLOURS), len(prompt["include"]))
        clause_of = [i for i, item in enumerate(prompt["include"]) for _ in range(item["count"])]
        for (shape, color), clause, (cx, cy, r) in zip(
            objects, clause_of, _place(len(objects), relation, rng), strict=True
        ):
            image = paint(image, shape_alpha(shape, cx, cy, r), COLOURS[color or free[clause]])
    return to_bytes(image)


def render_many(prompts: list[dict], seed: int) -> np.ndarray:
    """Draw a list of prompts, uint8 (N, H, W, 3); image i has the seed ``seed + i``."""
    return np.stack([render(p, seed + i) for i, p in enumerate(prompts)])
