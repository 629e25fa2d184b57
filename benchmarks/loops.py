"""The suite's loop against the straight loop, and every method against plain GRPO."""

from __future__ import annotations

import itertools
import statistics

import torch

from benchmarks.measuring import alternate, ratio
from benchmarks.setting import EXACT, TASK, open_trainer
from benchmarks.straight_loop import StraightLoop
from runs import config_files
from training.trainer import Trainer


@torch.no_grad()
def leave_the_base(trainer: Trainer, spread: float = 0.05) -> None:
    """Move the policy away from its reference: LoRA starts with B = 0, where every KL is 0."""
    rng = torch.Generator().manual_seed(0)
    for name, parameter in trainer.adapters.parameters.items():
        if "lora_B" in name:
            parameter.add_(spread * torch.randn(parameter.shape, generator=rng).to(parameter.device))


def gradient_difference(
    method: str, device: str = "cpu", task: str = TASK, base: dict | None = EXACT, **training
) -> tuple[float, dict[str, float]]:
    """Relative distance of the suite's gradients from the straight loop's at the same policy, which has left
    its reference, and the suite's terms.

    ``base``: the suite's precision, full unless told; the straight loop's is full. In another precision the
    suite updates on images of the full one, as a reward may turn on a rounding.
    """
    straight, suite = (open_trainer(method, device, task, b, **training) for b in (EXACT, base))
    for trainer in (straight, suite):
        leave_the_base(trainer)
    StraightLoop(straight).gradients(1)
    kept = {}
    suite.step = lambda loss, iteration: kept.update(loss.logged)  # and leave the gradients
    suite.update((suite if base is EXACT else straight).process.collect(1))
    a, b = (
        # No gradient reaches what the policy's velocity does not depend on.
        torch.cat([(0 * p if p.grad is None else p.grad).flatten() for p in t.adapters.parameters.values()])
        for t in (straight, suite)
    )
    return float((a - b).norm() / a.norm()), kept


def against_straight(method: str, task: str, device: str, repeats: int) -> dict:
    """Seconds per iteration of both loops, taken in turns, the median ratio of the pairs, and that of the
    suite in full precision: what its structure alone gains."""
    # Without a merged copy the straight loop keeps to LoRA layers and the precision of training.
    straight = StraightLoop(open_trainer(method, device, task, EXACT))
    suite, exact = (open_trainer(method, device, task, base) for base in (None, EXACT))
    turns = {name: itertools.count(1) for name in ("straight", "suite", "exact")}
    taken = alternate(
        {
            "straight": lambda: straight.iterate(next(turns["straight"])),
            "suite": lambda: suite.iterate(next(turns["suite"])),
            "exact": lambda: exact.iterate(next(turns["exact"])),
        },
        repeats,
    )
    return {
        "straight_seconds": statistics.median(taken["straight"]),
        "suite_seconds": statistics.median(taken["suite"]),
        "ratio": ratio(taken["straight"], taken["suite"]),
        "exact_ratio": ratio(taken["straight"], taken["exact"]),
        "gradient_difference": gradient_difference(method, device, task)[0],
        "gradient_difference_as_timed": gradient_difference(method, device, task, None)[0],
    }


def method_names() -> list[str]:
    """Every row of ``config/methods`` that trains."""
    names = config_files.method_names()
    return [name for name in names if config_files.load_method(name).training.get("iterations") != 0]


def against_grpo(method: str, device: str, repeats: int, **training) -> dict:
    """Seconds per iteration of a method over those of plain GRPO at equal images, taken in turns.

    ``training`` replaces settings of the method, not of plain GRPO.
    """
    trainers = {"grpo": open_trainer("grpo", device), "method": open_trainer(method, device, **training)}
    counts = {name: itertools.count(1) for name in trainers}
    calls = {name: lambda name=name: trainers[name].iterate(next(counts[name])) for name in trainers}
    taken = alternate(calls, repeats)
    return {
        "seconds": statistics.median(taken["method"]),
        "relative_to_grpo": 1 / ratio(taken["grpo"], taken["method"]),
    }
