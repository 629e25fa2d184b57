"""Random numbers that depend on names and counters only, so that a resumed run repeats itself."""

from __future__ import annotations

import hashlib

import torch


def seed_of(*parts: object) -> int:
    """A 63-bit seed from any mix of names and numbers; stable over processes and versions."""
    digest = hashlib.sha256("|".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(*parts: object) -> torch.Generator:
    """A CPU generator seeded with ``seed_of(parts)``."""
    return torch.Generator().manual_seed(seed_of(*parts))
