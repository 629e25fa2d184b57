"""AdamW on the policy's weights: steps on the gradients of all ranks, and what is read off them."""

from __future__ import annotations

from dataclasses import replace

import torch

from core.finite import check_finite
from methods import Loss
from runs.configuration import TrainingConfig
from training.ranks import Ranks

SCALER = ("scale", "_growth_tracker")  # what of the loss scaler's state moves


class Optimiser:
    """``parameters`` by name; ``steps`` counts the gradient steps taken.

    ``scaled``: losses are scaled, so that gradients in float16 do not vanish.
    """

    def __init__(
        self,
        parameters: dict[str, torch.nn.Parameter],
        settings: TrainingConfig,
        ranks: Ranks,
        scaled: bool = False,
    ):
        self.parameters, self.max_grad_norm, self.ranks = parameters, settings.max_grad_norm, ranks
        self.scaler = torch.amp.GradScaler(ranks.device.type, enabled=scaled)
        self.adamw = torch.optim.AdamW(
            parameters.values(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.steps = 0

    def zero_grad(self) -> None:
        self.adamw.zero_grad(set_to_none=True)

    def backward(self, loss: Loss) -> Loss:
        """Add the gradients of a micro-batch's loss; what is left of it holds no graph."""
        return replace(loss, value=self.scaler.scale(loss.value)).backward()

    def step(self, where: str) -> dict[str, float]:
        """One step; returns the norm of its gradient before clipping and the signal-to-noise ratio.

        Where losses are scaled, a gradient that has overflowed takes no step and lowers the scale
        (``overflow``).

        Raises:
            NotFinite: a gradient is not finite. It is named, with ``where``, before any weight has moved.
        """
        for parameter in self.parameters.values():
            if parameter.grad is None:  # a rank without rows
                parameter.grad = torch.zeros_like(parameter)
        self.ranks.add_up([p.grad for p in self.parameters.values()])
        self.scaler.unscale_(self.adamw)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.max_grad_norm)
        overflow = self.scaler.is_enabled() and not norm.isfinite()
        if not overflow:
            check_finite({f"gradient of {name}": p.grad for name, p in self.parameters.items()}, where)
        self.scaler.step(self.adamw)  # skips an overflow
        self.scaler.update()
        if overflow:
            return {"overflow": 1.0}
        self.steps += 1
        return {"gradient_norm": norm, "signal_to_noise": self.signal_to_noise()}

    def signal_to_noise(self) -> float:
        """Norm of AdamW's mean gradient over that of its root mean square, both bias-corrected.

        1 where all gradients of the last steps agree; noise alone gives sqrt((1 - b1) / (1 + b1)) = 0.23.
        """
        (b1, b2), states = self.adamw.defaults["betas"], self.adamw.state.values()
        mean, square = (
            sum(s[name].square().sum() if name == "exp_avg" else s[name].sum() for s in states)
            for name in ("exp_avg", "exp_avg_sq")
        )
        steps = self.steps
        corrected = (mean.sqrt() / (1 - b1**steps)) / (square / (1 - b2**steps)).sqrt().clamp(min=1e-20)
        return corrected.item()

    def state_dict(self) -> dict[str, torch.Tensor]:
        moments = {
            f"optimizer.{name}.{key}": value
            for key, parameter in self.parameters.items()
            for name, value in self.adamw.state[parameter].items()
        }
        scaler = self.scaler.state_dict()
        return moments | {f"scaler.{key}": torch.tensor(scaler[key]) for key in SCALER if key in scaler}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        scaler = self.scaler.state_dict()
        if scaler:
            moved = {key: state[f"scaler.{key}"].item() for key in SCALER}
            self.scaler.load_state_dict({**scaler, **moved})
        for key, parameter in self.parameters.items():
            self.adamw.state[parameter] = {
                name: state[f"optimizer.{name}.{key}"].to(device)
                # AdamW counts its steps on the CPU.
                for name, device in (
                    ("step", "cpu"),
                    ("exp_avg", parameter.device),
                    ("exp_avg_sq", parameter.device),
                )
            }
