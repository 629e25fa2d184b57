"""The suite's loop against the straight loop, and every method against plain GRPO."""

from __future__ import annotations

import itertools
import statistics
from pathlib import Path

import torch

from benchmarks.measuring import alternate, ratio
from benchmarks.setting import EXACT, iterate, open_trainer
from benchmarks.straight_loop import StraightLoop


def gradient_difference(method: str, device: str = "cpu", **training) -> float:
    """Relative distance of the two loops' gradients from the same state, in full precision."""
    straight, suite = (open_trainer(method, device, base=EXACT, **training) for _ in range(2))
    StraightLoop(straight).gradients(1)
    collected = suite.collector.collect(1, suite.history)
    suite.step = lambda terms, iteration: None  # keep the gradients
    suite.update(collected, suite.method.prepare(collected.rollout), 1)
    a, b = (torch.cat([p.grad.flatten() for p in t.parameters.values()]) for t in (straight, suite))
    return float((a - b).norm() / b.norm())


def against_straight(method: str, task: str, device: str, repeats: int) -> dict:
    """Seconds per iteration of both loops, taken in turns, and the median ratio of the pairs."""
    # Without a merged copy the straight loop keeps to LoRA layers and the precision of training.
    straight, suite = (
        StraightLoop(open_trainer(method, device, task, EXACT)),
        open_trainer(method, device, task),
    )
    turns = {"straight": itertools.count(1), "suite": itertools.count(1)}
    taken = alternate(
        {
            "straight": lambda: straight.iterate(next(turns["straight"])),
            "suite": lambda: iterate(suite, next(turns["suite"])),
        },
        repeats,
    )
    return {
        "straight_seconds": statistics.median(taken["straight"]),
        "suite_seconds": statistics.median(taken["suite"]),
        "ratio": ratio(taken["straight"], taken["suite"]),
    }


def method_names() -> list[str]:
    """Every row of ``config/methods`` that trains."""
    return sorted(p.stem for p in Path("config/methods").glob("*.yaml") if p.stem != "base")


def against_grpo(method: str, device: str, repeats: int) -> dict:
    """Seconds per iteration of a method over those of plain GRPO at equal images, taken in turns."""
    trainers = {
        name: open_trainer(method if name == "method" else "grpo", device) for name in ("grpo", "method")
    }
    counts = {name: itertools.count(1) for name in trainers}
    calls = {name: lambda name=name: iterate(trainers[name], next(counts[name])) for name in trainers}
    taken = alternate(calls, repeats)
    return {
        "seconds": statistics.median(taken["method"]),
        "relative_to_grpo": 1 / ratio(taken["grpo"], taken["method"]),
    }
