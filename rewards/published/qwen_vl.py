"""Images and clips for Qwen2-VL, 2.5 and 3 without transformers' processors, which differ by version."""

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

MERGED, FRAMES = 2, 2  # patches per side of a token, frames of a patch; a still image counts as two
IMAGE_TOKEN, CLIP_TOKEN = "<|image_pad|>", "<|video_pad|>"
_TURN = "<|im_start|>user\n<|vision_start|>{seen}<|vision_end|>{text}<|im_end|>\n<|im_start|>assistant\n"


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
    """Tokens (N, L), mask, flat patches of all images or clips (P, values), and the grid (N, 3): frames in
    ``FRAMES``, rows, columns."""

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


def clip_patches(
    frames: list[Image.Image], version: Version = QWEN2
) -> tuple[torch.Tensor, tuple[int, int, int]]:
    """Flat patches (T * rows * columns, values) of frames of one size, and (T, rows, columns).

    ``FRAMES`` consecutive frames make a patch, the four patches of a token stand in a row. The last frame
    is repeated where frames are missing.
    """
    pixels, side = normalised(frames, version.mean, version.std), version.patch
    pixels = torch.cat([pixels, *[pixels[-1:]] * (-len(pixels) % FRAMES)])
    times, rows, columns = len(pixels) // FRAMES, pixels.shape[2] // side, pixels.shape[3] // side
    grid = pixels.reshape(times, FRAMES, 3, rows // MERGED, MERGED, side, columns // MERGED, MERGED, side)
    grid = grid.permute(0, 3, 6, 4, 7, 2, 1, 5, 8)
    return grid.reshape(times * rows * columns, -1), (times, rows, columns)


def patches(image: Image.Image, version: Version = QWEN2) -> tuple[torch.Tensor, tuple[int, int]]:
    """Flat patches (rows * columns, values) of a still image, and (rows, columns)."""
    flat, (_, rows, columns) = clip_patches([image], version)
    return flat, (rows, columns)


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
    stills = [[picture] for picture in pictures]
    return _batch(tokenizer, stills, IMAGE_TOKEN, texts, least, most, padding_side, version)


def clip_batch(
    tokenizer: PreTrainedTokenizerBase,
    clips: list[list[Image.Image]],
    texts: list[str],
    least: int,
    most: int,
    padding_side: str,
    version: Version = QWEN2,
) -> VisionBatch:
    """One chat turn per clip: its frames, of ``least`` to ``most`` pixels each, then the text."""
    return _batch(tokenizer, clips, CLIP_TOKEN, texts, least, most, padding_side, version)


def _batch(
    tokenizer: PreTrainedTokenizerBase,
    clips: list[list[Image.Image]],
    token: str,
    texts: list[str],
    least: int,
    most: int,
    padding_side: str,
    version: Version,
) -> VisionBatch:
    flat, grids, chats = [], [], []
    for frames, text in zip(clips, texts, strict=True):
        size = fitted_size(*frames[0].size, least, most, version.side)
        resized = [frame.resize(size, Image.Resampling.BICUBIC) for frame in frames]
        values, grid = clip_patches(resized, version)
        flat.append(values)
        grids.append(grid)
        seen = token * (math.prod(grid) // MERGED**2)
        chats.append(version.system + _TURN.format(seen=seen, text=text))
    tokenizer.padding_side = padding_side
    tokens = tokenizer(chats, padding=True, return_tensors="pt")
    return VisionBatch(tokens.input_ids, tokens.attention_mask, torch.cat(flat), torch.tensor(grids))
