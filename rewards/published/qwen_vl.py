"""Inputs of Qwen2-VL and Qwen2.5-VL without transformers' processors, which differ between its versions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from PIL import Image

from rewards.published.images import normalised

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PATCH, MERGED, FRAMES = 14, 2, 2  # pixels of a patch, patches per side of a token, frames of a still image
SIDE = PATCH * MERGED  # pixels of a token
IMAGE_TOKEN = "<|image_pad|>"
_CHAT = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n<|vision_start|>{image}<|vision_end|>{text}<|im_end|>\n"
    "<|im_start|>assistant\n"
)


@dataclass
class VisionBatch:
    """Tokens (N, L) with their mask, patches of all images (P, 1176), grid (N, 3): frames, rows, columns."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    pixel_values: torch.Tensor
    image_grid_thw: torch.Tensor


def fitted_size(width: int, height: int, least: int, most: int) -> tuple[int, int]:
    """Nearest sides in whole tokens; rescaled down or up where the area leaves [least, most] pixels."""
    sides = [max(1, round(side / SIDE)) * SIDE for side in (width, height)]
    if math.prod(sides) > most:
        scale = math.sqrt(width * height / most)
        sides = [max(1, math.floor(side / scale / SIDE)) * SIDE for side in (width, height)]
    elif math.prod(sides) < least:
        scale = math.sqrt(least / (width * height))
        sides = [math.ceil(side * scale / SIDE) * SIDE for side in (width, height)]
    return sides[0], sides[1]


def patches(image: Image.Image) -> tuple[torch.Tensor, tuple[int, int]]:
    """Flat patches (rows * columns, 1176), the four of a token in a row, and (rows, columns)."""
    pixels = normalised([image])[0]
    rows, columns = pixels.shape[1] // PATCH, pixels.shape[2] // PATCH
    grid = pixels.reshape(3, rows // MERGED, MERGED, PATCH, columns // MERGED, MERGED, PATCH)
    grid = grid.permute(1, 4, 2, 5, 0, 3, 6).unsqueeze(5)
    return grid.expand(*grid.shape[:5], FRAMES, PATCH, PATCH).reshape(rows * columns, -1), (rows, columns)


def batch(
    tokenizer: PreTrainedTokenizerBase,
    pictures: list[Image.Image],
    texts: list[str],
    least: int,
    most: int,
    padding_side: str,
) -> VisionBatch:
    """One chat turn per picture: the picture, then the text."""
    flat, grids, chats = [], [], []
    for picture, text in zip(pictures, texts, strict=True):
        fitted = picture.resize(fitted_size(*picture.size, least, most), Image.Resampling.BICUBIC)
        values, (rows, columns) = patches(fitted)
        flat.append(values)
        grids.append([1, rows, columns])
        chats.append(_CHAT.format(image=IMAGE_TOKEN * (rows * columns // MERGED**2), text=text))
    tokenizer.padding_side = padding_side
    tokens = tokenizer(chats, padding=True, return_tensors="pt")
    return VisionBatch(tokens.input_ids, tokens.attention_mask, torch.cat(flat), torch.tensor(grids))
