"""The LoRA adapters of a run: the policy, its moving average, and the copies that a run needs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch

from base_models.base import POLICY, BaseModel
from processes.base import REFERENCE

Weights = dict[str, torch.Tensor]
EVERY = 8  # gradient steps between two moves of the public code's average, and moves at each


def official_decay(decay: float, step: int) -> float:
    """What the average keeps of itself after gradient step ``step``, counted from 1, in Flow-GRPO's public
    code (yifan123/flow_grpo ``ema.py`` with an interval of eight, called once per trained denoising step)."""
    return min((1 + step) / (10 + step), decay) ** EVERY if step % EVERY == 0 else 1.0


class Adapters:
    """``parameters`` are the policy's, ``average`` what is evaluated."""

    def __init__(self, model: BaseModel, copies: Iterable[str], start: Path | None, scale: float = 1.0):
        """``copies``: adapters that begin as the policy; ``start``: a folder with its first weights, whose
        change of the base model is multiplied by ``scale``."""
        self.model, self.copies = model, list(copies)
        model.add_adapter(POLICY)
        if start:
            model.read_adapter(start)
            with torch.no_grad():
                for name, parameter in model.adapter_parameters(POLICY).items():
                    parameter *= scale if "lora_B" in name else 1.0
        for name in self.copies:
            model.add_adapter(name)
            model.copy_adapter(POLICY, name)
        model.transformer.set_adapter(POLICY)
        self.parameters = model.adapter_parameters(POLICY)
        self.average = {k: p.detach().clone() for k, p in self.parameters.items()}

    def reset_reference(self) -> None:
        """The reference becomes the policy."""
        self.model.copy_adapter(POLICY, REFERENCE)

    @torch.no_grad()
    def move_average(self, decay: float) -> None:
        for key, value in self.average.items():
            value.lerp_(self.parameters[key].detach(), 1 - decay)

    def snapshot(self) -> Weights:
        """A copy of the policy's weights."""
        return {k: p.detach().clone() for k, p in self.parameters.items()}

    @torch.no_grad()
    def distance(self, before: Weights) -> float:
        """Euclidean distance of the policy's weights from a snapshot."""
        return torch.stack([(p - before[k]).norm() for k, p in self.parameters.items()]).norm().item()

    def _all(self) -> dict[str, Weights]:
        copies = {name: self.model.adapter_parameters(name) for name in self.copies}
        return {"policy": self.parameters, "average": self.average, **copies}

    def state_dict(self) -> Weights:
        return {
            f"{name}.{k}": p.detach() for name, weights in self._all().items() for k, p in weights.items()
        }

    @torch.no_grad()
    def load_state_dict(self, state: Weights) -> None:
        for name, weights in self._all().items():
            for key, parameter in weights.items():
                parameter.copy_(state[f"{name}.{key}"])
