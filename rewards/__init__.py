"""Rewards and metrics, one plug-in per file. ``get("ocr")`` loads ``rewards/ocr.py``."""

from __future__ import annotations

from core.plugins import Plugins
from rewards.base import Reward, RewardError
from rewards.published.hub import check

_rewards = Plugins(__name__, "reward", Reward)
names, get_class = _rewards.names, _rewards.get


def get(name: str) -> Reward:
    """An instance, weights loaded and checked; a client of its service if it runs in its own environment."""
    reward = get_class(name)
    check([reward])
    if reward.environment is None:
        return reward()
    from rewards.service.client import IsolatedReward

    return IsolatedReward(reward)


__all__ = ["Reward", "RewardError", "get", "get_class", "names"]
