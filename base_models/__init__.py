"""Adapters over diffusers pipelines, and the recipe of the tiny pipelines that ship with the suite."""

from __future__ import annotations

import importlib
import pkgutil

from base_models.base import BaseModel, BaseModelConfig, Prompts

_NOT_PLUGINS = {"base"}


def names() -> list[str]:
    """Every registered adapter: the modules of this package that are no helper."""
    found = (m.name for m in pkgutil.iter_modules(__path__) if not m.ispkg)
    return sorted(n for n in found if not n.startswith("_") and n not in _NOT_PLUGINS)


def open_base_model(config: BaseModelConfig, device="cpu") -> BaseModel:
    """Open the pipeline that ``config`` names. Raises ``ValueError`` with the valid adapters."""
    if config.adapter not in names():
        raise ValueError(f"unknown base model adapter {config.adapter!r}; valid: {', '.join(names())}")
    module = importlib.import_module(f"base_models.{config.adapter}")
    for value in vars(module).values():
        if (
            isinstance(value, type)
            and issubclass(value, BaseModel)
            and getattr(value, "name", None) == config.adapter
        ):
            return value(config, device)
    raise ValueError(f"base_models/{config.adapter}.py holds no BaseModel with name = {config.adapter!r}")


__all__ = ["BaseModel", "BaseModelConfig", "Prompts", "names", "open_base_model"]
