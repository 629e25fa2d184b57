"""Train a small ``AutoencoderKLWan`` on clips: 9 x 32x32x3 -> 3 x 8x8x16 latents.

Two things decide whether so small a model of this class learns to draw objects at all:

- Its first weights. The convolutions are causal in time and a clip's first frame sees padding before it, so
  of the usual first weights only a third carries signal, and the norms, which act on every pixel by itself,
  then keep the biases alone. Here a convolution begins as one of images, in its last tap in time.
- The objects' share of the loss. They are a few pixels; without a weight of their own the mean is fitted.

Single frames come first, for they cost a fifth of a clip and the convolutions begin as those of images.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan
from torch import nn

from base_models.cpu_engine import has_bf16
from pretraining.fitting import fit

CONFIG = dict(
    base_dim=16,
    decoder_base_dim=12,
    z_dim=16,
    dim_mult=[1, 2, 4],
    num_res_blocks=1,
    temperal_downsample=[True, True],
    latents_mean=[0.0] * 16,
    latents_std=[1.0] * 16,
)
FRAMES_SHARE = 0.3  # of the steps, on single frames
FRAMES_BATCH, CLIPS_BATCH = 64, 12
OBJECT_WEIGHT, OBJECT_CHROMA = 4.0, 0.6  # added weight of pixels whose channels (-1 to 1) differ so much
FIRST_BIAS = 0.5  # standard deviation; flat brightness reaches a norm of single pixels only beside a bias
LATENT_WEIGHT = 1e-5


def to_model_range(clips: torch.Tensor) -> torch.Tensor:
    """uint8 (N, F, H, W, 3) -> float (N, 3, F, H, W) in [-1, 1]."""
    return clips.movedim(-1, 1).float() / 127.5 - 1


def opened(folder: Path) -> AutoencoderKLWan:
    """A trained one."""
    return AutoencoderKLWan.from_pretrained(folder).eval().requires_grad_(False)


def initialise(model: AutoencoderKLWan) -> None:
    """First weights that carry a single frame at unit variance."""
    for name, module in model.named_modules():
        if not isinstance(module, nn.Conv2d | nn.Conv3d):
            continue
        nn.init.zeros_(module.bias)
        weight = module.weight.data
        if "time_conv" in name:
            nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
            outputs, inputs = weight.shape[:2]
            if outputs == 2 * inputs:  # of the decoder: both frames begin much as the one they come from
                weight.mul_(0.3)
                weight[:, :, -1, 0, 0] += torch.eye(inputs).repeat(2, 1)
        elif weight.dim() == 5:
            weight.zero_()
            last = weight[:, :, -1]
            last.normal_(std=last[0].numel() ** -0.5)
        else:
            nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
    for half in (model.encoder, model.decoder):
        nn.init.normal_(half.conv_in.bias, std=FIRST_BIAS)


def decode(model: AutoencoderKLWan, latents: torch.Tensor) -> torch.Tensor:
    """The model's ``decode`` without its clamp, which has no gradient outside of [-1, 1]."""
    model.clear_cache()
    x, frames = model.post_quant_conv(latents), []
    for index in range(latents.shape[2]):
        model._conv_idx = [0]
        cache = {"feat_cache": model._feat_map, "feat_idx": model._conv_idx}
        frames.append(model.decoder(x[:, :, index : index + 1], **cache, first_chunk=index == 0))
    model.clear_cache()
    return torch.cat(frames, dim=2)


def reconstruction_loss(model: AutoencoderKLWan, x: torch.Tensor) -> torch.Tensor:
    """L1 + L2, objects weighted, of media (N, 3, F, H, W) in [-1, 1]."""
    with torch.autocast("cpu", torch.bfloat16, enabled=has_bf16(x.device)):
        latents = model.encode(x).latent_dist.mode()
        error = (decode(model, latents) - x).float()
    objects = x.amax(1, keepdim=True) - x.amin(1, keepdim=True) > OBJECT_CHROMA
    weighted = (1 + OBJECT_WEIGHT * objects) * (error.abs() + error.square())
    return weighted.mean() + LATENT_WEIGHT * latents.float().square().mean()


def _batches(clips: torch.Tensor, steps: int) -> Iterator[torch.Tensor]:
    """Media (B, 3, F, H, W) of every step: single frames, then clips."""
    for step in range(steps):
        if step < FRAMES_SHARE * steps:
            rows = torch.randint(len(clips), (FRAMES_BATCH,))
            frames = torch.randint(clips.shape[1], (FRAMES_BATCH,))
            yield to_model_range(clips[rows, frames][:, None])
        else:
            yield to_model_range(clips[torch.randint(len(clips), (CLIPS_BATCH,))])


def train(clips: torch.Tensor, steps: int, seed: int, lr: float = 2e-3) -> AutoencoderKLWan:
    """Sets ``latents_mean`` and ``latents_std``, by channel, from the data.

    Args:
        clips: uint8 (N, F, H, W, 3).
    """
    torch.manual_seed(seed)
    model = AutoencoderKLWan(**CONFIG)
    initialise(model)
    batches = _batches(clips, steps)
    fit(
        model,
        steps,
        lr,
        "autoencoder",
        lambda: reconstruction_loss(model, next(batches)),
        weight_decay=1e-4,
        rising=0.05,
    )
    latents = encode(model, clips[:2048])
    mean, std = latents.mean((0, 2, 3, 4)), latents.std((0, 2, 3, 4))
    model.register_to_config(latents_mean=mean.tolist(), latents_std=std.tolist())
    return model


@torch.no_grad()
def encode(model: AutoencoderKLWan, clips: torch.Tensor, batch: int = 64) -> torch.Tensor:
    """Raw latents, float (N, 16, 3, 8, 8)."""
    return torch.cat([model.encode(to_model_range(x)).latent_dist.mode() for x in clips.split(batch)])


def normalise(model: AutoencoderKLWan, latents: torch.Tensor) -> torch.Tensor:
    """The pipeline's convention: (z - mean) / std of each channel."""
    mean, std = (torch.tensor(model.config[key]) for key in ("latents_mean", "latents_std"))
    return (latents - mean[:, None, None, None]) / std[:, None, None, None]


def reconstruction_error(model: AutoencoderKLWan, clips: torch.Tensor) -> float:
    """Mean absolute error in [0, 1] pixel units."""
    with torch.no_grad():
        x = to_model_range(clips)
        return (model.decode(model.encode(x).latent_dist.mode()).sample - x).abs().mean().item() / 2
