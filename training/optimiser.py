"""AdamW on the policy's weights: steps on the gradients of all ranks, and what is read off them."""

from __future__ import annotations

import torch

from runs.configuration import TrainingConfig
from training.ranks import Ranks


class Optimiser:
    """``parameters`` by name; ``steps`` counts the gradient steps taken."""

    def __init__(self, parameters: dict[str, torch.nn.Parameter], settings: TrainingConfig, ranks: Ranks):
        self.parameters, self.max_grad_norm, self.ranks = parameters, settings.max_grad_norm, ranks
        self.adamw = torch.optim.AdamW(
            parameters.values(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.steps = 0

    def zero_grad(self) -> None:
        self.adamw.zero_grad(set_to_none=True)

    def step(self) -> dict[str, float]:
        """One step; returns the norm of its gradient before clipping and the signal-to-noise ratio."""
        for parameter in self.parameters.values():
            if parameter.grad is None:  # a rank without rows
                parameter.grad = torch.zeros_like(parameter)
        self.ranks.add_up([p.grad for p in self.parameters.values()])
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.max_grad_norm)
        self.adamw.step()
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
        return {
            f"optimizer.{name}.{key}": value
            for key, parameter in self.parameters.items()
            for name, value in self.adamw.state[parameter].items()
        }

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
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
