"""Medians of wall time after a warm-up, ratios of alternating pairs, counted FLOPs, the machine's peak."""

from __future__ import annotations

import math
import os
import platform
import statistics
import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from training import provenance

WARM_UP = 1


def seconds(call: Callable[[], object]) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def median_seconds(call: Callable[[], object], repeats: int, warm_up: int = WARM_UP) -> float:
    """Median wall seconds of ``call`` after ``warm_up`` unmeasured calls."""
    for _ in range(warm_up):
        call()
    return statistics.median(seconds(call) for _ in range(repeats))


def alternate(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Wall seconds of each call, taken in turns, so that all see the same state of the machine."""
    for call in calls.values():
        for _ in range(WARM_UP):
            call()
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            taken[name].append(seconds(call))
    return taken


def ratio(slow: list[float], fast: list[float]) -> float:
    """Median of the ratios of pairs."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def flops(call: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products and convolutions that ``call`` runs."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


SLOW = 0.1  # seconds of a product beyond which none of twice the width is tried


def peak_flops(dtype: torch.dtype, device: torch.device | str, repeats: int = 5) -> float:
    """FLOP/s of a square matrix product, the machine's practical peak in this precision.

    On a GPU with TF32 where convolutions in float32 use it, as torch lets them.
    """

    def factors(size: int) -> tuple[torch.Tensor, ...]:
        return tuple(torch.randn(size, size, device=device).to(dtype) for _ in range(2))

    largest = 8192 if torch.device(device).type == "cuda" else 2048  # a millisecond or more
    size, taken = 256, 0.0
    while size < largest and taken < SLOW:  # a processor without instructions for bf16 stays at a small one
        a, b = factors(size)
        taken = median_seconds(lambda: a @ b, 1)  # noqa: B023
        size *= 2 if taken < SLOW else 1
    a, b = factors(size)
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    try:
        return 2 * size**3 / median_seconds(lambda: a @ b, repeats)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def peak_memory_mb(device: torch.device | str) -> float:
    """Peak of what this process held, on the GPU where it computes on one."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_reserved(device) / 2**20
    return provenance.peak_memory_mb()


def exponent(x: list[float], y: list[float]) -> float:
    """Slope of log y over log x by least squares: y grows like x to this power."""
    log_x, log_y = [math.log(v) for v in x], [math.log(v) for v in y]
    return statistics.linear_regression(log_x, log_y).slope


def hardware(threads: int) -> dict[str, str | int]:
    return {
        **provenance.hardware(),
        "cores": os.cpu_count() or 1,
        "threads": threads,
        "system": platform.system(),
    }


__all__ = [
    "alternate",
    "exponent",
    "flops",
    "hardware",
    "median_seconds",
    "peak_flops",
    "peak_memory_mb",
    "ratio",
    "seconds",
]
