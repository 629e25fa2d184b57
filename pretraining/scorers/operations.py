"""The operations of both corruption families; see ``corruptions``.

Every operation takes images (N, 3, H, W) in [0, 1], severities (N,) in [0, 1] and a generator, and gives
images of the same shape, not yet clipped; severity 0 changes nothing.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

_FOREGROUND_CHROMA = 0.15  # pastel signs reach 0.36, objects 0.72, backgrounds 0


def _column(severity: torch.Tensor) -> torch.Tensor:
    return severity.view(-1, 1, 1, 1)


def _uniform(n: int, low: float, high: float, generator: torch.Generator, *shape: int) -> torch.Tensor:
    return low + (high - low) * torch.rand(n, *(shape or (1, 1, 1)), generator=generator)


def _smooth_noise(n: int, channels: int, cells: int, size: int, generator: torch.Generator) -> torch.Tensor:
    """Normal values on a coarse grid, interpolated. (n, channels, size, size)."""
    coarse = torch.randn(n, channels, cells, cells, generator=generator)
    return F.interpolate(coarse, size=size, mode="bicubic", align_corners=True)


def _grid(n: int, size: int) -> torch.Tensor:
    """Identity sampling grid (n, size, size, 2) in [-1, 1]."""
    line = torch.linspace(-1, 1, size)
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x, y], dim=-1).expand(n, size, size, 2)


def _sample(images: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Read each pixel ``shift`` (N, 2, H, W) pixels away."""
    size = images.shape[-1]
    where = _grid(len(images), size) + shift.permute(0, 2, 3, 1) * (2 / (size - 1))
    return F.grid_sample(images, where, mode="bilinear", padding_mode="border", align_corners=True)


def _direction(n: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit vectors as two (n, 1, 1, 1) tensors."""
    angle = _uniform(n, 0, 2 * math.pi, generator)
    return angle.cos(), angle.sin()


def foreground(images: torch.Tensor) -> torch.Tensor:
    """1 on coloured pixels and two pixels around them, which closes the ink of signs. (N, 1, H, W)."""
    chroma = images.amax(1, keepdim=True) - images.amin(1, keepdim=True)
    return F.max_pool2d((chroma > _FOREGROUND_CHROMA).float(), 5, 1, 2)


# --- family A ----------------------------------------------------------------------------------------


def noise(images, severity, generator):
    """White Gaussian noise, standard deviation up to 0.3."""
    return images + 0.3 * _column(severity) * torch.randn(images.shape, generator=generator)


def blur(images, severity, generator):
    """Gaussian blur, standard deviation up to 2.2 pixels, separable."""
    offsets = torch.arange(-5.0, 6.0)
    kernel = torch.exp(-(offsets**2) / (2 * (2.2 * severity[:, None]).clamp(min=0.05) ** 2))
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(3, 0)[:, None]
    n, size = len(images), images.shape[-1]
    x = F.pad(images, (5, 5, 5, 5), mode="replicate").reshape(1, 3 * n, size + 10, size + 10)
    x = F.conv2d(F.conv2d(x, kernel[:, :, None], groups=3 * n), kernel[..., None], groups=3 * n)
    return x.reshape(n, 3, size, size)


def tone(images, severity, generator):
    """Less contrast and a colour cast."""
    n, s = len(images), _column(severity)
    cast = 0.25 * s * _uniform(n, -1, 1, generator, 3, 1, 1)
    return 0.5 + (images - 0.5) * (1 - 0.7 * s * _uniform(n, 0.5, 1, generator)) + cast


def blotches(images, severity, generator):
    """Soft patches of random colours."""
    n, size = len(images), images.shape[-1]
    mask = torch.sigmoid(4 * (_smooth_noise(n, 1, 6, size, generator) - 0.6)) * _column(severity)
    color = (0.5 + 0.6 * _smooth_noise(n, 3, 3, size, generator)).clamp(0, 1)
    return images * (1 - mask) + color * mask


def dirt(images, severity, generator):
    """A lighting gradient and mottled coloured texture."""
    n, size = len(images), images.shape[-1]
    x, y = _grid(n, size).permute(3, 0, 1, 2)[:, :, None]
    dx, dy = _direction(n, generator)
    texture = 0.16 * _smooth_noise(n, 3, 10, size, generator) + 0.1 * _smooth_noise(n, 1, 5, size, generator)
    return images + _column(severity) * (texture + 0.25 * (dx * x + dy * y))


def melt(images, severity, generator):
    """A smooth random displacement, up to about four pixels: shapes lose their outline."""
    field = _smooth_noise(len(images), 2, 8, images.shape[-1], generator)
    return _sample(images, 2.2 * _column(severity) * field)


def bleed(images, severity, generator):
    """Objects and signs take on foreign colours here and there, light pixels more than dark ones."""
    n, size = len(images), images.shape[-1]
    chroma = images.amax(1, keepdim=True) - images.amin(1, keepdim=True)
    share = torch.sigmoid(4 * _smooth_noise(n, 1, 5, size, generator)) * (2 * chroma).clamp(0, 1)
    color = (0.5 + 0.8 * torch.randn(n, 3, 1, 1, generator=generator)).clamp(0.14, 0.86)
    return torch.lerp(images, color.expand_as(images), _column(severity) * share)


def specks(images, severity, generator):
    """Small saturated dots, up to about fourteen."""
    n, size = len(images), images.shape[-1]
    chance = _column(severity) * 14 / size**2
    seeds = (torch.rand(n, 1, size, size, generator=generator) < chance).float()
    mask = F.max_pool2d(seeds, 3, 1, 1) * (1 - 0.5 * torch.rand(n, 1, size, size, generator=generator))
    color = (torch.rand(n, 3, 1, 1, generator=generator) > 0.5).float() * 0.72 + 0.14
    return images * (1 - mask) + color * mask


# --- family B ----------------------------------------------------------------------------------------


def stripes(images, severity, generator):
    """A coloured sine pattern, every second one crossed by another to a grid."""
    n, size = len(images), images.shape[-1]
    x, y = _grid(n, size).permute(3, 0, 1, 2)[:, :, None]
    dx, dy = _direction(n, generator)
    frequency, phase = _uniform(n, 6, 24, generator), _uniform(n, 0, 6.3, generator)
    wave = torch.sin(frequency * (dx * x + dy * y) + phase)
    crossed = (torch.rand(n, 1, 1, 1, generator=generator) < 0.5).float()
    wave = wave + crossed * torch.sin(frequency * (dx * y - dy * x) + phase)
    return images + 0.22 * _column(severity) * wave * _uniform(n, -1, 1, generator, 3, 1, 1)


def posterise(images, severity, generator):
    """Few tones and a wrong saturation: washed out or garish."""
    s = _column(severity)
    grey = images.mean(1, keepdim=True)
    washed = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5
    toned = grey + (images - grey) * torch.where(washed, 1 - 0.75 * s, 1 + 1.2 * s)
    # Dither before rounding, else flat backgrounds would hide the lost tones.
    dither = torch.rand(images.shape, generator=generator) - 0.5
    levels = 2 + 10 * (1 - s)
    return torch.lerp(toned, (toned * levels + dither).round() / levels, s)


def salt_and_pepper(images, severity, generator):
    """Single channels of up to a quarter of the pixels set to 0 or 1."""
    draw = torch.rand(images.shape, generator=generator) / (0.25 * _column(severity)).clamp(min=1e-6)
    return torch.where(draw < 0.5, 0.0, torch.where(draw < 1, 1.0, images))


def mosaic(images, severity, generator):
    """Blocks of two to four pixels, each with its own tint."""
    n, size = len(images), images.shape[-1]
    blocks = int(torch.randint(8, 17, (1,), generator=generator))
    tint = torch.randn(n, 3, blocks, blocks, generator=generator)
    return images + 0.22 * _column(severity) * F.interpolate(tint, size=size, mode="nearest")


def ripple(images, severity, generator):
    """Sine waves bend and break up the outlines."""
    n, size = len(images), images.shape[-1]
    x, y = _grid(n, size).permute(3, 0, 1, 2)[:, :, None]
    fx, fy = _uniform(n, 8, 20, generator), _uniform(n, 8, 20, generator)
    phase = _uniform(n, 0, 6.3, generator)
    shift = torch.cat([torch.sin(fy * y + phase), torch.sin(fx * x + 2 * phase)], dim=1)
    return _sample(images, 2.6 * _column(severity) * shift)


def smear(images, severity, generator):
    """Each pixel is drawn out along one direction and scattered: letters run."""
    dx, dy = _direction(len(images), generator)
    size = images.shape[-1]
    total = torch.zeros_like(images)
    for step in (-1.0, -0.5, 0.0, 0.5, 1.0):
        jitter = torch.randn(len(images), 2, size, size, generator=generator)
        along = step * torch.cat([dx, dy], dim=1)
        total += _sample(images, _column(severity) * (4.0 * along + 0.9 * jitter))
    return total / 5


def ghost(images, severity, generator):
    """A shifted, see-through copy."""
    dx, dy = _direction(len(images), generator)
    shift = torch.cat([dx, dy], dim=1) * _uniform(len(images), 3, 9, generator)
    copy = _sample(images, shift.expand(-1, 2, *images.shape[-2:]))
    return torch.lerp(images, copy, 0.55 * _column(severity))


def drop_patches(images, severity, generator):
    """Up to about a third of the 4x4 patches replaced by a flat colour."""
    n, size = len(images), images.shape[-1]
    dropped = torch.rand(n, 1, size // 4, size // 4, generator=generator) < 0.35 * _column(severity)
    mask = dropped.float().repeat_interleave(4, 2).repeat_interleave(4, 3)
    return images * (1 - mask) + torch.rand(n, 3, 1, 1, generator=generator) * mask
