"""Seeded image corruptions in two disjoint families, A and B, of a severity in [0, 1].

Policies that have learnt to hack a reward in this world draw dirty backgrounds behind intact objects,
melted outlines and smeared letters. Both families hold something of each kind, made in different ways,
so that scorers trained on different families fail in different ways.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from pretraining.scorers import operations as ops

Operation = Callable[[torch.Tensor, torch.Tensor, torch.Generator], torch.Tensor]
FAMILIES: dict[str, tuple[Operation, ...]] = {
    "A": (ops.noise, ops.blur, ops.tone, ops.blotches, ops.dirt, ops.melt, ops.bleed, ops.specks),
    "B": (
        ops.stripes,
        ops.posterise,
        ops.salt_and_pepper,
        ops.mosaic,
        ops.ripple,
        ops.smear,
        ops.ghost,
        ops.drop_patches,
    ),
}
_TEXTURES = {ops.noise, ops.blotches, ops.dirt, ops.specks, ops.stripes, ops.salt_and_pepper, ops.mosaic}
BACKGROUND_SHARE = 0.4  # of the images that get a texture have it behind their objects only
SECOND_SHARE = 0.3  # of the images get two operations


def corrupt(
    images: torch.Tensor, severity: torch.Tensor, family: str, generator: torch.Generator
) -> torch.Tensor:
    """Apply one or two random operations of a family to every image.

    Args:
        images: float (N, 3, H, W) in [0, 1], clean.
        severity: float (N,) in [0, 1].
        family: a key of ``FAMILIES``.

    Returns:
        float (N, 3, H, W) in [0, 1].
    """
    result, objects = images.clone(), ops.foreground(images)
    n, operations = len(images), FAMILIES[family]
    first = torch.randint(len(operations), (n,), generator=generator)
    second = torch.randint(len(operations), (n,), generator=generator)
    second[torch.rand(n, generator=generator) > SECOND_SHARE] = -1
    behind = torch.rand(n, generator=generator) < BACKGROUND_SHARE
    for chosen in (first, second):
        for i, operation in enumerate(operations):
            rows = (chosen == i).nonzero()[:, 0]
            if not len(rows):
                continue
            before = result[rows]
            after = operation(before, severity[rows], generator).clamp(0, 1)
            if operation in _TEXTURES:
                keep = objects[rows] * behind[rows].view(-1, 1, 1, 1)
                after = torch.lerp(after, before, keep)
            result[rows] = after
    return result
