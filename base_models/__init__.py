"""Adapters over diffusers pipelines, and the recipe of the tiny pipelines that ship with the suite."""

from __future__ import annotations

import torch

from base_models.base import BaseModel, Embeddings
from base_models.configuration import BaseModelConfig
from core.plugins import Plugins

_adapters = Plugins(__name__, "base model adapter", BaseModel)
names, get_class = _adapters.names, _adapters.get


def open_base_model(config: BaseModelConfig, device="cpu") -> BaseModel:
    """Open the pipeline that ``config`` names. Raises ``ValueError`` where something it needs is missing."""
    model = get_class(config.pipeline)
    missing = model.missing(config, gpu=torch.device(device).type == "cuda")
    if missing:
        raise ValueError("; ".join(missing))
    return model(config, device)


__all__ = ["BaseModel", "BaseModelConfig", "Embeddings", "get_class", "names", "open_base_model"]
