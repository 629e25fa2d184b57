"""A request: safetensors bytes with 8-bit images; captions and metadata as JSON in the file's header."""

from __future__ import annotations

import json

import safetensors
import safetensors.torch
import torch

from rewards.published.images import to_uint8


class WireError(ValueError):
    """These bytes are no request."""


def pack(images: torch.Tensor, prompts: list[str], metadata: list[dict]) -> bytes:
    """Float images (N, 3, H, W) or clips (N, F, 3, H, W) in [0, 1], rounded to 8 bits as in a saved file."""
    header = {"prompts": json.dumps(prompts), "metadata": json.dumps(metadata)}
    return safetensors.torch.save({"images": to_uint8(images).contiguous()}, header)


def unpack(message: bytes) -> tuple[torch.Tensor, list[str], list[dict]]:
    """What ``pack`` was given. Raises ``WireError`` for anything else."""
    try:
        images = safetensors.torch.load(message)["images"]
        length = int.from_bytes(message[:8], "little")  # safetensors: the header's size, then the header
        header = json.loads(message[8 : 8 + length])["__metadata__"]
        prompts, metadata = json.loads(header["prompts"]), json.loads(header["metadata"])
    except (safetensors.SafetensorError, LookupError, ValueError, TypeError, RecursionError) as error:
        raise WireError(f"not a safetensors message with images, prompts and metadata: {error}") from None
    if images.dtype != torch.uint8 or images.ndim not in (4, 5) or images.shape[-3] != 3:
        valid = "uint8 (N, 3, H, W) or (N, F, 3, H, W)"
        raise WireError(f"images must be {valid}, got {images.dtype} {tuple(images.shape)}")
    for name, values, kind in (("prompts", prompts, str), ("metadata", metadata, dict)):
        if not isinstance(values, list) or not all(isinstance(value, kind) for value in values):
            raise WireError(f"{name} must be a list of {'texts' if kind is str else 'mappings'}")
    if not len(images) == len(prompts) == len(metadata):
        raise WireError(f"{len(images)} images, {len(prompts)} prompts, {len(metadata)} metadata")
    return images.float() / 255, prompts, metadata
