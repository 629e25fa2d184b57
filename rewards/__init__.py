"""Rewards and metrics, one plug-in per file. ``get("ocr")`` loads ``rewards/ocr.py``."""

from __future__ import annotations

import importlib
import pkgutil

from rewards.base import Reward, RewardError
from rewards.published.hub import check

_NOT_PLUGINS = {"base", "geneval_rules", "networks", "weights"}


def names() -> list[str]:
    """Every registered reward: the modules of this package that are no underscore name and no helper."""
    found = (m.name for m in pkgutil.iter_modules(__path__) if not m.ispkg)
    return sorted(n for n in found if not n.startswith("_") and n not in _NOT_PLUGINS)


def get_class(name: str) -> type[Reward]:
    """The reward's class. Raises ``ValueError`` with the valid names for an unknown one."""
    if name not in names():
        raise ValueError(f"unknown reward {name!r}; valid: {', '.join(names())}")
    module = importlib.import_module(f"rewards.{name}")
    for value in vars(module).values():
        if isinstance(value, type) and issubclass(value, Reward) and getattr(value, "name", None) == name:
            return value
    raise ValueError(f"rewards/{name}.py holds no Reward subclass with name = {name!r}")


def get(name: str) -> Reward:
    """An instance, weights loaded and checked; a client of its service if it runs in its own environment."""
    reward = get_class(name)
    check([reward])
    if reward.environment is None:
        return reward()
    from rewards.service.client import IsolatedReward

    return IsolatedReward(reward)


__all__ = ["Reward", "RewardError", "get", "get_class", "names"]
