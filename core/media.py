"""Images and clips: what base models make, rewards judge and files hold.

An image is a tensor (3, H, W) in [0, 1] or pixels uint8 (H, W, 3). A clip has its frames in front:
(F, 3, H, W) and (F, H, W, 3). N of them are called media: (N, 3, H, W) or (N, F, 3, H, W).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

Medium = Literal["image", "clip"]
STRIP = 3  # frames that stand for a clip where there is room for a picture


def medium_of(media: torch.Tensor) -> Medium:
    """What N media are, by their shape. Raises ``ValueError`` for one that is neither's."""
    if media.dim() not in (4, 5) or media.shape[-3] != 3:
        raise ValueError(f"media have shape {tuple(media.shape)}; valid: (N, 3, H, W) or (N, F, 3, H, W)")
    return "image" if media.dim() == 4 else "clip"


def to_pixels(media: torch.Tensor) -> torch.Tensor:
    """Float (N, ..., 3, H, W) in [0, 1] -> uint8 (N, ..., H, W, 3) on the CPU."""
    return (media * 255).round().byte().movedim(-3, -1).cpu().contiguous()


def to_media(pixels: np.ndarray | torch.Tensor) -> torch.Tensor:
    """uint8 (N, ..., H, W, 3) -> float (N, ..., 3, H, W) in [0, 1]."""
    return torch.as_tensor(pixels).movedim(-1, -3).float() / 255


def as_frames(clips: torch.Tensor, *of_each: list) -> tuple:
    """Clips (N, F, 3, H, W) as images (N F, 3, H, W), and lists of N entries with one for every frame."""
    repeated = ([entry for entry in entries for _ in range(clips.shape[1])] for entries in of_each)
    return clips.flatten(0, 1), *repeated


def by_clip(of_frames: torch.Tensor, clips: torch.Tensor) -> torch.Tensor:
    """What was said of all frames (N F, ...) as (N, F, ...)."""
    return of_frames.unflatten(0, clips.shape[:2])


def chosen_frames(pixels: np.ndarray, most: int) -> np.ndarray:
    """An image (H, W, 3) as one frame, a clip (F, H, W, 3) as ``most`` frames at most, evenly chosen, the
    first and the last among them: (f, H, W, 3)."""
    frames = pixels if pixels.ndim == 4 else pixels[None]
    return frames[np.unique(np.linspace(0, len(frames) - 1, most).round().astype(int))]


def film_strip(pixels: np.ndarray, frames: int = STRIP) -> np.ndarray:
    """A picture (H, W', 3) of an image, which it is itself, or of a clip: some frames of it side by side, the
    first and the last among them."""
    return np.concatenate(list(chosen_frames(pixels, frames)), axis=1)
