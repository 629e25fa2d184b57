"""Images that went through the base model: autoencoder reconstructions, and generated images if given."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from scenes.gold import gold_reward

GOLD_NOISE = 0.1  # of the simulated raters, standard deviation
MIN_MARGIN = 0.05  # pairs that the raters see as ties teach nothing


@torch.no_grad()
def decode_scenes(
    images: torch.Tensor, folder: Path, generator: torch.Generator, batch: int = 128
) -> tuple[torch.Tensor, torch.Tensor]:
    """Reconstructions by the autoencoder in ``folder``, without and with noise on their latents.

    Args:
        images: uint8 (N, 3, H, W).

    Returns:
        uint8 (N, 3, H, W) twice. The noise has 0.3 to 1 standard deviations of a latent.
    """
    from diffusers import AutoencoderKL

    model = AutoencoderKL.from_pretrained(folder).eval()

    def decode(latents: torch.Tensor) -> torch.Tensor:
        pixels = model.decode(latents).sample / 2 + 0.5
        return (pixels.clamp(0, 1) * 255).round().to(torch.uint8)

    faithful, noisy = [], []
    for chunk in tqdm(images.split(batch), desc="decoding", unit="batch", mininterval=2):
        latents = model.encode(chunk.float() / 127.5 - 1).latent_dist.mean
        strength = 0.3 + 0.7 * torch.rand(len(chunk), 1, 1, 1, generator=generator)
        noise = torch.randn(latents.shape, generator=generator) / model.config.scaling_factor
        faithful.append(decode(latents))
        noisy.append(decode(latents + strength * noise))
    return torch.cat(faithful), torch.cat(noisy)


def save_generated(path: Path, images: torch.Tensor, prompts: list[dict]) -> None:
    """Write generated images float (N, 3, H, W) in [0, 1] and their prompt dicts as ``.npz``."""
    pixels = (images.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    np.savez_compressed(path, images=pixels, prompts=np.array([json.dumps(p) for p in prompts]))


def load_generated(path: Path) -> tuple[torch.Tensor, list[dict]]:
    """Images uint8 (N, 3, H, W) and their prompt dicts."""
    with np.load(path) as stored:
        return torch.from_numpy(stored["images"]), [json.loads(text) for text in stored["prompts"]]


def ranked_pairs(images: torch.Tensor, prompts: list[dict], generator: torch.Generator) -> torch.Tensor:
    """Pairs of images of one prompt, the one with the higher noisy gold reward first. long (P, 2)."""
    gold = torch.from_numpy(gold_reward((images.permute(0, 2, 3, 1).double() / 255).numpy(), prompts))
    rated = gold + GOLD_NOISE * torch.randn(gold.shape, generator=generator, dtype=gold.dtype)
    groups: dict[str, list[int]] = {}
    for i, prompt in enumerate(prompts):
        groups.setdefault(prompt["prompt"], []).append(i)
    pairs = [
        (i, j) if rated[i] > rated[j] else (j, i)
        for group in groups.values()
        for i, j in itertools.combinations(group, 2)
        if abs(rated[i] - rated[j]) > MIN_MARGIN
    ]
    if not pairs:
        raise ValueError("generated images give no pair: several images per prompt are needed")
    return torch.tensor(pairs)
