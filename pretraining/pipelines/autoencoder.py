"""Train the tiny AutoencoderKL on scenes: 32x32x3 -> 8x8x8 latents."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL

from pretraining.fitting import fit

CONFIG = dict(
    in_channels=3,
    out_channels=3,
    down_block_types=("DownEncoderBlock2D",) * 3,
    up_block_types=("UpDecoderBlock2D",) * 3,
    block_out_channels=(32, 48, 64),
    layers_per_block=1,
    latent_channels=8,
    norm_num_groups=8,
    sample_size=32,
    use_quant_conv=False,  # as in SD3's autoencoder
    use_post_quant_conv=False,
    mid_block_add_attention=False,
)
KL_WEIGHT = 1e-5


def to_model_range(images: torch.Tensor) -> torch.Tensor:
    """uint8 (N, H, W, 3) -> float (N, 3, H, W) in [-1, 1]."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def opened(folder: Path) -> AutoencoderKL:
    """A trained one."""
    return AutoencoderKL.from_pretrained(folder).eval().requires_grad_(False)


def train(images: torch.Tensor, steps: int, seed: int, batch: int = 64, lr: float = 2e-3) -> AutoencoderKL:
    """L1 + L2 reconstruction with a light KL; sets ``shift_factor`` and ``scaling_factor`` from the data."""
    torch.manual_seed(seed)
    model = AutoencoderKL(**CONFIG)

    def loss_of_batch() -> torch.Tensor:
        x = to_model_range(images[torch.randint(len(images), (batch,))])
        posterior = model.encode(x).latent_dist
        error = model.decode(posterior.sample()).sample - x
        return error.abs().mean() + error.square().mean() + KL_WEIGHT * posterior.kl().mean()

    fit(model, steps, lr, "autoencoder", loss_of_batch, weight_decay=1e-4, rising=0.05)
    latents = encode(model, images[:4096])
    model.register_to_config(shift_factor=latents.mean().item(), scaling_factor=(1 / latents.std()).item())
    return model


@torch.no_grad()
def encode(model: AutoencoderKL, images: torch.Tensor, batch: int = 256) -> torch.Tensor:
    """Raw posterior means, float (N, 8, 8, 8)."""
    return torch.cat([model.encode(to_model_range(x)).latent_dist.mean for x in images.split(batch)])


def normalise(model: AutoencoderKL, latents: torch.Tensor) -> torch.Tensor:
    """SD3's convention: (z - shift) * scale."""
    return (latents - model.config.shift_factor) * model.config.scaling_factor


def reconstruction_error(model: AutoencoderKL, images: torch.Tensor) -> float:
    """Mean absolute error in [0, 1] pixel units."""
    with torch.no_grad():
        x = to_model_range(images)
        return (model.decode(model.encode(x).latent_dist.mean).sample - x).abs().mean().item() / 2
