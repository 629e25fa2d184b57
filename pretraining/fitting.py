"""The loop of every model here that minimises one loss: autoencoders and scorers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from tqdm import trange


def fit(
    model: nn.Module,
    steps: int,
    lr: float,
    name: str,
    loss_of_batch: Callable[[], torch.Tensor],
    *,
    weight_decay: float = 0.01,
    rising: float = 0.15,
) -> nn.Module:
    """AdamW with one learning-rate cycle; returns the model in evaluation mode, without gradients.

    Args:
        rising: share of the steps before the learning rate falls.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=rising)
    model.train()
    bar = trange(steps, desc=name, unit="step", mininterval=2)
    for step in bar:
        loss = loss_of_batch()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    return model.eval().requires_grad_(False)
