"""Prompt sets that are not shipped: fetched from public sources, or generated. ``python -m prompt_sets``."""

from __future__ import annotations

from prompt_sets.configuration import FOLDER, identity, is_pending, load, names, set_of, size

__all__ = ["FOLDER", "identity", "is_pending", "load", "names", "set_of", "size"]
