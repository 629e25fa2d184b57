"""Thresholds that depend on the number of dimensions of a latent, and where they are carried over.

All public code takes log-probabilities and KLs as means over a latent's dimensions, and the papers state
their thresholds for one size of it. A configuration states them for that size as well; ``carried_over``
gives the ones that hold for a latent of ``dimensions`` numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, TypeVar

from pydantic import BaseModel, Field

Config = TypeVar("Config", bound=BaseModel)
PAPER_DIMENSIONS = 65_536  # SD3.5-Medium and FLUX.1-dev at 512 px: 16 x 64 x 64


@dataclass(frozen=True)
class DependsOnLatentSize:
    """Marks a field of a configuration; ``carry(value, dimensions)`` is the value at another size."""

    carry: Callable[[float, int], float]


def _by_spread(value: float, dimensions: int) -> float:
    """The spread of a mean falls with the root of the number of dimensions.

    The factor has one significant digit, as published clip ranges have: 10 for the 512 dimensions of the
    embedded base models, whose root is 11.3.
    """
    return value * float(f"{math.sqrt(PAPER_DIMENSIONS / dimensions):.0e}")


def _by_sum(value: float, dimensions: int) -> float:
    """What a mean is bounded for is its sum, the KL of a whole image: 1e-4 x 65,536 = 6.55."""
    return value * PAPER_DIMENSIONS / dimensions


def _of_a_logit(value: float, dimensions: int) -> float:
    """What multiplies a mean in a logit keeps the logit's spread, and falls as the mean's spread rises."""
    return value**2 / _by_spread(value, dimensions)


_STATED = f"at {PAPER_DIMENSIONS:,} latent dimensions"
ClipRange = Annotated[
    float,
    Field(gt=0, description=f"epsilon of the clipped ratio, {_STATED}; paper: 1e-4 (GARDO section 5)"),
    DependsOnLatentSize(_by_spread),
]
KLThreshold = Annotated[
    float,
    Field(gt=0, description=f"epsilon_KL, {_STATED}: the reference is reset when the KL loss exceeds it"),
    DependsOnLatentSize(_by_sum),
]


TrustRegion = Annotated[
    float,
    Field(gt=0, description=f"epsilon, KL per dimension of one denoising step, {_STATED}"),
    DependsOnLatentSize(_by_sum),
]
PreferenceStrength = Annotated[
    float,
    Field(gt=0, description=f"beta of a preference logit, which multiplies mean squared errors, {_STATED}"),
    DependsOnLatentSize(_of_a_logit),
]


def carried_over(config: Config, dimensions: int) -> Config:
    """``config`` with every marked field's value at ``dimensions``."""
    values = {
        name: mark.carry(getattr(config, name), dimensions)
        for name, field in type(config).model_fields.items()
        for mark in field.metadata
        if isinstance(mark, DependsOnLatentSize)
    }
    return config.model_copy(update=values)
