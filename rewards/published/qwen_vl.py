"""Inputs of Qwen2-VL, 2.5 and 3 without transformers' processors, which differ between its versions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from PIL import Image

from rewards.published.hub import HubFiles, folder
from rewards.published.images import CLIP_MEAN, CLIP_STD, device, normalised

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MERGED, FRAMES = 2, 2  # patches per side of a token, frames of a still image
IMAGE_TOKEN = "<|image_pad|>"
_TURN = "<|im_start|>user\n<|vision_start|>{image}<|vision_end|>{text}<|im_end|>\n<|im_start|>assistant\n"


@dataclass(frozen=True)
class Version:
    """What differs between versions: pixels of a patch, how pixels are normalised, what leads a chat."""

    patch: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    system: str

    @property
    def side(self) -> int:
        """Pixels of a token."""
        return self.patch * MERGED


_SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
QWEN2 = Version(14, CLIP_MEAN, CLIP_STD, _SYSTEM)  # and 2.5
QWEN3 = Version(16, (0.5,) * 3, (0.5,) * 3, "")


@dataclass
class VisionBatch:
    """Tokens (N, L), mask, flat patches of all images (P, values), grid (N, 3) of frames, rows, columns."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    pixel_values: torch.Tensor
    image_grid_thw: torch.Tensor

    def arguments(
        self, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel
    ) -> dict[str, torch.Tensor]:
        """Of a model of transformers 5: all of it there, and which tokens are of an image."""
        ids = self.input_ids.to(model.device)
        return {
            "input_ids": ids,
            "attention_mask": self.attention_mask.to(model.device),
            "pixel_values": self.pixel_values.to(model.device, model.dtype),
            "image_grid_thw": self.image_grid_thw.to(model.device),
            "mm_token_type_ids": (ids == tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)).int(),
        }


def opened(model_class: str, source: HubFiles) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Tokenizer and frozen model of a class of transformers, in bf16 on an accelerator."""
    import transformers

    here, where = folder(source), device()
    model = getattr(transformers, model_class).from_pretrained(
        here, dtype=torch.bfloat16 if where.type == "cuda" else torch.float32, use_safetensors=True
    )
    return transformers.AutoTokenizer.from_pretrained(here), model.eval().requires_grad_(False).to(where)


def fitted_size(width: int, height: int, least: int, most: int, token: int = QWEN2.side) -> tuple[int, int]:
    """Nearest sides in whole tokens; rescaled down or up where the area leaves [least, most] pixels."""
    sides = [max(1, round(side / token)) * token for side in (width, height)]
    if math.prod(sides) > most:
        scale = math.sqrt(width * height / most)
        sides = [max(1, math.floor(side / scale / token)) * token for side in (width, height)]
    elif math.prod(sides) < least:
        scale = math.sqrt(least / (width * height))
        sides = [math.ceil(side * scale / token) * token for side in (width, height)]
    return sides[0], sides[1]


def patches(image: Image.Image, version: Version = QWEN2) -> tuple[torch.Tensor, tuple[int, int]]:
    """Flat patches (rows * columns, values), the four of a token in a row, and (rows, columns)."""
    pixels, side = normalised([image], version.mean, version.std)[0], version.patch
    rows, columns = pixels.shape[1] // side, pixels.shape[2] // side
    grid = pixels.reshape(3, rows // MERGED, MERGED, side, columns // MERGED, MERGED, side)
    grid = grid.permute(1, 4, 2, 5, 0, 3, 6).unsqueeze(5)
    return grid.expand(*grid.shape[:5], FRAMES, side, side).reshape(rows * columns, -1), (rows, columns)


def batch(
    tokenizer: PreTrainedTokenizerBase,
    pictures: list[Image.Image],
    texts: list[str],
    least: int,
    most: int,
    padding_side: str,
    version: Version = QWEN2,
) -> VisionBatch:
    """One chat turn per picture: the picture, then the text."""
    flat, grids, chats = [], [], []
    for picture, text in zip(pictures, texts, strict=True):
        size = fitted_size(*picture.size, least, most, version.side)
        values, (rows, columns) = patches(picture.resize(size, Image.Resampling.BICUBIC), version)
        flat.append(values)
        grids.append([1, rows, columns])
        image = IMAGE_TOKEN * (rows * columns // MERGED**2)
        chats.append(version.system + _TURN.format(image=image, text=text))
    tokenizer.padding_side = padding_side
    tokens = tokenizer(chats, padding=True, return_tensors="pt")
    return VisionBatch(tokens.input_ids, tokens.attention_mask, torch.cat(flat), torch.tensor(grids))
