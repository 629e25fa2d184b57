"""From tensors to model inputs, with one backend: Pillow's resize and float32 normalisation.

Pillow and torchvision resize differently, by enough to move a score's third digit; every reward with
published weights prepares its images here. VBench's metrics alone resize as torchvision does without a
low-pass filter (``aliased``).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def device() -> torch.device:
    """The accelerator of this process, if there is one."""
    return (
        torch.device("cuda", torch.cuda.current_device())
        if torch.cuda.is_available()
        else torch.device("cpu")
    )


def to_uint8(images: torch.Tensor) -> torch.Tensor:
    """float (N, ..., 3, H, W) in [0, 1] -> uint8 of the same shape, on the CPU."""
    return (images.detach().float() * 255).round().clamp(0, 255).byte().cpu()


def to_pil(images: torch.Tensor) -> list[Image.Image]:
    """float (N, 3, H, W) in [0, 1] -> N RGB images."""
    return [Image.fromarray(pixels) for pixels in to_uint8(images).permute(0, 2, 3, 1).numpy()]


def crop_to(
    image: Image.Image, size: int, resample: Image.Resampling = Image.Resampling.BICUBIC
) -> Image.Image:
    """Shorter side to ``size``, then the central square."""
    short = min(image.size)
    width, height = (max(size, int(size * side / short)) for side in image.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.resize((width, height), resample).crop((left, top, left + size, top + size))


def crop_to_bilinear(image: Image.Image, size: int) -> Image.Image:
    """``crop_to`` as torchvision's resize does it where nobody names an interpolation."""
    return crop_to(image, size, Image.Resampling.BILINEAR)


def aliased(image: Image.Image, width: int, height: int, mode: str) -> Image.Image:
    """Resize without the low-pass filter that Pillow applies: torchvision's ``antialias=False``, to the bit.

    VBench resizes so. ``mode`` is "bilinear" or "bicubic".
    """
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    resized = F.interpolate(pixels, (height, width), mode=mode, align_corners=False)
    return Image.fromarray(resized[0].round().clamp(0, 255).byte().permute(1, 2, 0).numpy())


def crop_to_aliased(image: Image.Image, size: int) -> Image.Image:
    """Shorter side to ``size`` by ``aliased``, bicubic, then the central square."""
    resized = shorter_to_aliased(image, size, "bicubic")
    left, top = (round((side - size) / 2) for side in resized.size)
    return resized.crop((left, top, left + size, top + size))


def shorter_to_aliased(image: Image.Image, size: int, mode: str = "bilinear") -> Image.Image:
    """Shorter side to ``size`` by ``aliased``; nothing is cut off."""
    width, height = (int(size * side / min(image.size)) for side in image.size)
    return aliased(image, width, height, mode)


def pad_to(image: Image.Image, size: int) -> Image.Image:
    """Longer side to ``size``, then black borders of equal width up to the square."""
    long = max(image.size)
    width, height = (round(size * side / long) for side in image.size)
    square = Image.new("RGB", (size, size))
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    square.paste(resized, ((size - width) // 2, (size - height) // 2))
    return square


def normalised(
    images: list[Image.Image], mean: tuple[float, ...] = CLIP_MEAN, std: tuple[float, ...] = CLIP_STD
) -> torch.Tensor:
    """float32 (N, 3, H, W) from images of one size."""
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2)
    return (pixels.float() / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def square(
    images: torch.Tensor,
    size: int,
    mean: tuple[float, ...] = CLIP_MEAN,
    std: tuple[float, ...] = CLIP_STD,
) -> torch.Tensor:
    """float (N, 3, H, W) in [0, 1] -> normalised float32 (N, 3, size, size), the central square."""
    return normalised([crop_to(image, size) for image in to_pil(images)], mean, std)


def in_batches(
    function: Callable[..., torch.Tensor], batch: int, images: torch.Tensor, *more: list
) -> torch.Tensor:
    """``function`` over consecutive batches of images and of further lists with N entries, concatenated."""
    found = []
    for start in range(0, len(images), batch):
        rows = slice(start, start + batch)
        found.append(function(images[rows], *(values[rows] for values in more)).float().cpu())
    return torch.cat(found)
