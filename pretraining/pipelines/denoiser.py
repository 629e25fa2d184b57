"""Flow-matching pre-training of a tiny transformer together with its text encoders.

x_t = (1 - sigma) x0 + sigma eps, target v = eps - x0, sigma = sigmoid(N(0, 1)) as in SD3
(arXiv 2403.03206, section 3.1, rf/lognorm(0, 1)) where a recipe names no other.
"""

from __future__ import annotations

import torch
from tqdm import trange

from pretraining.pipelines.recipe import Recipe

CAPTION_DROPOUT = 0.1  # lets the finished model be guided
EMA_DECAY = 0.999


def train(
    recipe: Recipe,
    latents: torch.Tensor,
    captions: list[str],
    steps: int,
    seed: int,
    lr: float,
    stop: int | None = None,
) -> None:
    """Train in place; the pipeline ends with the exponential moving average of the weights.

    Args:
        latents: normalised (N, C, ...), one per caption.
        steps: of the learning rate's schedule.
        stop: leave the schedule after so many steps.
    """
    batch = recipe.batch
    torch.manual_seed(seed)
    ids, empty = recipe.token_ids(captions), recipe.token_ids([""])
    modules = torch.nn.ModuleList(recipe.trained())
    modules.train().requires_grad_(True)
    parameters = list(modules.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.99), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.03)
    average = [p.detach().clone() for p in parameters]
    bar = trange(1, (stop or steps) + 1, desc="transformer", unit="step", mininterval=2)
    for step in bar:
        index = torch.randint(len(latents), (batch,))
        dropped = torch.rand(batch, 1) < CAPTION_DROPOUT
        tokens = tuple(torch.where(dropped, e, i[index]) for i, e in zip(ids, empty, strict=True))
        x0, noise = latents[index], torch.randn(batch, *latents.shape[1:])
        loss = recipe.loss(x0, noise, recipe.sigma(batch), tokens)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        torch._foreach_lerp_(
            average, [p.detach() for p in parameters], 1 - min(EMA_DECAY, step / (step + 10))
        )
        if step % 100 == 0:
            bar.set_postfix(loss=f"{loss.item():.4f}", refresh=False)
    with torch.no_grad():
        for parameter, value in zip(parameters, average, strict=True):
            parameter.copy_(value)
    modules.eval().requires_grad_(False)
