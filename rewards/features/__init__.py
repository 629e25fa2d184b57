"""Encoders for diversity, one plug-in per file. No reward uses them."""

from __future__ import annotations

import importlib
import pkgutil

from rewards.features.base import Features
from rewards.published.hub import check


def feature_names() -> list[str]:
    """Every registered encoder."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name != "base")


def get_features_class(name: str) -> type[Features]:
    """The encoder's class. Raises ``ValueError`` with the valid names for an unknown one."""
    if name not in feature_names():
        raise ValueError(f"unknown feature encoder {name!r}; valid: {', '.join(feature_names())}")
    module = importlib.import_module(f"rewards.features.{name}")
    for value in vars(module).values():
        if isinstance(value, type) and issubclass(value, Features) and getattr(value, "name", None) == name:
            return value
    raise ValueError(f"rewards/features/{name}.py holds no Features subclass with name = {name!r}")


def get_features(name: str) -> Features:
    """An encoder, weights loaded and checked."""
    encoder = get_features_class(name)
    check([encoder])
    return encoder()


__all__ = ["Features", "feature_names", "get_features", "get_features_class"]
