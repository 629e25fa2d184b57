"""Encoders for diversity, one plug-in per file. One reward reads one: ``rewards/consistency.py``."""

from __future__ import annotations

from core.plugins import Plugins
from rewards.features.base import Features
from rewards.published.hub import check

_encoders = Plugins(__name__, "feature encoder", Features)
feature_names, get_features_class = _encoders.names, _encoders.get


def get_features(name: str) -> Features:
    """An encoder, weights loaded and checked."""
    encoder = get_features_class(name)
    check([encoder])
    return encoder()


__all__ = ["Features", "feature_names", "get_features", "get_features_class"]
