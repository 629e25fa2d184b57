"""Seeded faults of clips, of a severity in [0, 1]: what an image model sees, and what only motion shows.

Every fault of motion takes clips (N, F, 3, H, W) in [0, 1], severities (N,) and a generator, and gives clips
of the same shape, not yet clipped; severity 0 changes nothing. Walls are nearly flat, so that a frame that is
shifted as a whole shows its objects shifted.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch.nn import functional as F

from pretraining.scorers.corruptions import corrupt

LEAST_CHANGE = 0.004  # mean over the pixels of the frame that changes most: below it a fault is invisible


def corrupt_alike(
    clips: torch.Tensor, severity: torch.Tensor, family: str, generator: torch.Generator
) -> torch.Tensor:
    """``corruptions.corrupt`` with the same random choices in every frame of a clip."""
    before = generator.get_state()
    frames = []
    for frame in clips.unbind(1):
        generator.set_state(before)
        frames.append(corrupt(frame, severity, family, generator))
    return torch.stack(frames, dim=1)


def _uniform(n: int, low: float, high: float, generator: torch.Generator, *shape: int) -> torch.Tensor:
    return low + (high - low) * torch.rand(n, *(shape or (1,)), generator=generator)


def _wide(values: torch.Tensor) -> torch.Tensor:
    """(N,) or (N, F) beside clips."""
    return values.view(*values.shape, *[1] * (5 - values.dim()))


def _times(clips: torch.Tensor) -> torch.Tensor:
    """Numbers of the frames, float (1, F)."""
    return torch.arange(clips.shape[1], dtype=torch.float32)[None]


def _at(clips: torch.Tensor, when: torch.Tensor) -> torch.Tensor:
    """Frame ``when[i, t]``, long (N, F), of clip i in place of frame t."""
    return clips[torch.arange(len(clips))[:, None], when]


def _centres(clips: torch.Tensor) -> torch.Tensor:
    """Where the colour of every frame is, (N, F, 2) in pixels as (x, y)."""
    weight = (clips.amax(2) - clips.amin(2) - 0.15).clamp(min=0) + 1e-6
    line = torch.arange(clips.shape[-1], dtype=torch.float32)
    moments = torch.stack([(weight.sum(-2) * line).sum(-1), (weight.sum(-1) * line).sum(-1)], dim=-1)
    return moments / weight.sum((-2, -1))[..., None]


def _warped(clips: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor | None = None) -> torch.Tensor:
    """Frames moved by ``shift`` (N, F, 2) pixels, or grown by ``scale`` (N, F) about their centre."""
    n, count, _, size, _ = clips.shape
    line = torch.arange(size, dtype=torch.float32)
    y, x = torch.meshgrid(line, line, indexing="ij")
    where = torch.stack([x, y], dim=-1) - shift[:, :, None, None]
    if scale is not None:
        centre = _centres(clips)[:, :, None, None]
        where = centre + (where - centre) / scale[:, :, None, None, None]
    grid = (where / ((size - 1) / 2) - 1).flatten(0, 1)
    moved = F.grid_sample(clips.flatten(0, 1), grid, padding_mode="border", align_corners=True)
    return moved.unflatten(0, (n, count))


def _shifted(clips: torch.Tensor, shift: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Half of the clips move by whole pixels, so that no blur gives the shift away."""
    whole = torch.rand(len(clips), 1, 1, generator=generator) < 0.5
    return _warped(clips, torch.where(whole, shift.round(), shift))


# --- faults of motion --------------------------------------------------------------------------------


def freeze(clips, severity, generator):
    """From some frame on, at full severity from the first, nothing moves."""
    stop = ((1 - severity[:, None]) * (clips.shape[1] - 1)).round()
    return _at(clips, torch.minimum(_times(clips), stop).long())


def swap_frames(clips, severity, generator):
    """Frames change places, up to any order."""
    n, count = clips.shape[:2]
    key = _times(clips) + 6 * severity[:, None] * torch.rand(n, count, generator=generator)
    return _at(clips, key.argsort(dim=1))


def jitter(clips, severity, generator):
    """Every frame is displaced by itself, standard deviation up to 1.8 pixels."""
    noise = torch.randn(*clips.shape[:2], 2, generator=generator)
    return _shifted(clips, 1.8 * severity[:, None, None] * noise, generator)


def flicker(clips, severity, generator):
    """Every frame has its own brightness and contrast."""
    n, count = clips.shape[:2]
    light = 0.15 * severity[:, None] * torch.randn(n, count, generator=generator)
    contrast = 1 - 0.5 * severity[:, None] * torch.rand(n, count, generator=generator)
    return 0.5 + (clips - 0.5) * _wide(contrast) + _wide(light)


def ghosts(clips, severity, generator):
    """An earlier frame, or a later one, shines through."""
    n, count = clips.shape[:2]
    lag = torch.randint(1, 4, (n, 1), generator=generator)
    lag = torch.where(torch.rand(n, 1, generator=generator) < 0.5, lag, -lag)
    other = _at(clips, (_times(clips).long() - lag).clamp(0, count - 1))
    return torch.lerp(clips, other, 0.55 * _wide(severity))


def teleport(clips, severity, generator):
    """A leap of up to ten pixels, for good or there and back."""
    n, count = clips.shape[:2]
    angle = _uniform(n, 0, 2 * math.pi, generator)
    leap = torch.stack([angle.cos(), angle.sin()], dim=-1) * (10 * severity[:, None, None])
    start = torch.randint(2, count - 2, (n, 1), generator=generator)
    length = torch.randint(1, 4, (n, 1), generator=generator)
    length = torch.where(torch.rand(n, 1, generator=generator) < 0.5, length, count)
    away = (_times(clips) >= start) & (_times(clips) < start + length)
    return _shifted(clips, leap * away[..., None], generator)


def blink(clips, severity, generator):
    """Objects are gone, or faint, for up to three frames."""
    n, count = clips.shape[:2]
    start = torch.randint(1, count - 1, (n, 1), generator=generator)
    length = torch.randint(1, 4, (n, 1), generator=generator)
    gone = (_times(clips) >= start) & (_times(clips) < start + length)
    wall = clips.flatten(-2).median(-1).values[..., None, None].expand_as(clips)
    return torch.lerp(clips, wall, _wide(severity[:, None] * gone))


def colour_drift(clips, severity, generator):
    """Objects change their hue in the course of the clip; walls are grey and stay."""
    n, count = clips.shape[:2]
    to_right = torch.rand(n, 1, 1, 1, 1, generator=generator) < 0.5
    other = torch.where(to_right, clips.roll(1, dims=2), clips.roll(2, dims=2))
    return torch.lerp(clips, other, _wide(severity[:, None] * _times(clips) / (count - 1)))


def size_drift(clips, severity, generator):
    """Objects grow or shrink to up to twice or half their size."""
    n, count = clips.shape[:2]
    sign = torch.rand(n, 1, generator=generator).sub(0.5).sign()
    scale = torch.exp(0.7 * sign * severity[:, None] * _times(clips) / (count - 1))
    return _warped(clips, torch.zeros(n, count, 2), scale)


def speed_change(clips, severity, generator):
    """Objects go their way slowly up to some frame and fast from there, or the other way round."""
    n, count = clips.shape[:2]
    last = count - 1
    turn = torch.randint(3, count - 3, (n, 1), generator=generator).float()
    slow_first = torch.rand(n, 1, generator=generator) < 0.5
    left = 1 - 0.9 * severity[:, None]
    reached = torch.where(slow_first, turn * left, last - (last - turn) * left)
    times = _times(clips)
    early = times / turn * reached
    late = reached + (times - turn) / (last - turn) * (last - reached)
    when = torch.where(times <= turn, early, late)
    centres = _centres(clips)
    low = when.floor().clamp(max=last - 1)
    before, after = _at(centres, low.long()), _at(centres, low.long() + 1)
    return _shifted(clips, torch.lerp(before, after, (when - low)[..., None]) - centres, generator)


Fault = Callable[[torch.Tensor, torch.Tensor, torch.Generator], torch.Tensor]
FAULTS: tuple[Fault, ...] = (
    freeze,
    swap_frames,
    jitter,
    flicker,
    ghosts,
    teleport,
    blink,
    colour_drift,
    size_drift,
    speed_change,
)


def at_fault(clips: torch.Tensor, severity: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """One random fault of motion in every clip. float (N, F, 3, H, W) in [0, 1]."""
    chosen = torch.randint(len(FAULTS), (len(clips),), generator=generator)
    result = clips.clone()
    for i, fault in enumerate(FAULTS):
        rows = (chosen == i).nonzero()[:, 0]
        if len(rows):
            result[rows] = fault(clips[rows], severity[rows], generator).clamp(0, 1)
    return result


def visible(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """Which clips differ: what stands still cannot freeze. bool (N,)."""
    return (after - before).abs().mean((2, 3, 4)).amax(1) > LEAST_CHANGE
