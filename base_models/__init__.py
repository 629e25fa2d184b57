"""Adapters over diffusers pipelines, and the recipe of the tiny pipelines that ship with the suite."""

from __future__ import annotations

import importlib
import pkgutil

import torch

from base_models.base import BaseModel, BaseModelConfig, Prompts

_NOT_PLUGINS = {"attention", "base", "pipelines", "requirements"}


def names() -> list[str]:
    """Every registered adapter: the modules of this package that are no helper."""
    found = (m.name for m in pkgutil.iter_modules(__path__) if not m.ispkg)
    return sorted(n for n in found if not n.startswith("_") and n not in _NOT_PLUGINS)


def get_class(adapter: str) -> type[BaseModel]:
    """The class of ``base_models/<adapter>.py``. Raises ``ValueError`` with the valid adapters."""
    if adapter not in names():
        raise ValueError(f"unknown base model adapter {adapter!r}; valid: {', '.join(names())}")
    module = importlib.import_module(f"base_models.{adapter}")
    for value in vars(module).values():
        if (
            isinstance(value, type)
            and issubclass(value, BaseModel)
            and getattr(value, "name", None) == adapter
        ):
            return value
    raise ValueError(f"base_models/{adapter}.py holds no BaseModel with name = {adapter!r}")


def open_base_model(config: BaseModelConfig, device="cpu") -> BaseModel:
    """Open the pipeline that ``config`` names. Raises ``ValueError`` where something it needs is missing."""
    model = get_class(config.adapter)
    missing = model.missing(config, gpu=torch.device(device).type == "cuda")
    if missing:
        raise ValueError("; ".join(missing))
    return model(config, device)


__all__ = ["BaseModel", "BaseModelConfig", "Prompts", "get_class", "names", "open_base_model"]
