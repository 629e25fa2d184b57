"""What the command lines of training and evaluation share."""

from __future__ import annotations

import argparse
import atexit
import gc
import os
import sys
from collections.abc import Callable

# Environment of the workflow's jobs: large temporary tensors go through the heap. Fresh pages from the system
# cost 5 % of an iteration and a quarter of decoding many images at once (benchmarks/README.md).
JOB_ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": "4000000000",
    "MALLOC_TRIM_THRESHOLD_": "4000000000",
    "MALLOC_TOP_PAD_": "268435456",
    "TOKENIZERS_PARALLELISM": "false",
}


def start_quickly() -> None:
    """Look for garbage less often, and not at all when the process ends.

    The model libraries allocate a million objects that stay. At Python's default (every 700 allocations)
    looking through them is a quarter of a job's start-up, and doing so once more at its end 1.4 seconds.
    """
    gc.set_threshold(100_000, 50, 50)
    atexit.register(gc.freeze)


def set_threads(count: int) -> None:
    """A job uses the threads it is given and no more, and on an accelerator only kernels that repeat."""
    import torch  # commands that only render do without it

    torch.set_num_threads(count)
    torch.set_num_interop_threads(1)
    if torch.cuda.is_available():
        repeatable()


def repeatable() -> None:
    """Ask CUDA for kernels that give equal results in equal calls, in float32 where that is asked for.

    Where an operator has none, torch warns and goes on: that job does not repeat bit for bit.
    """
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    torch.backends.cudnn.benchmark = False  # which would choose kernels by their time
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.utils.deterministic.fill_uninitialized_memory = False  # of no use without a bug
    torch.use_deterministic_algorithms(True, warn_only=True)


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """Type of an argument: a whole number in a range."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:  # which a number of thousands of digits is as well
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text[:40]!r}; valid: a whole number from {low} to {high}")
        return value

    return parse


count = whole_number(1, 10**7)  # of images, steps, processes
threads = whole_number(1, 1024)
seed = whole_number(0, 2**32 - 1)


def positive(text: str) -> float:
    """Type of an argument: a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text[:40]!r}; valid: a number above 0")
    return value


def device(text: str) -> str:
    """Type of an argument: where to compute."""
    import torch

    valid = ["cpu", *["cuda"] * torch.cuda.is_available()]
    if text not in valid:
        raise argparse.ArgumentTypeError(f"{text!r}; valid here: {', '.join(valid)}")
    return text


def default_device() -> str:
    """The accelerator of this machine, or its processor."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def run_command(arguments: argparse.Namespace) -> int:
    """Call ``arguments.call``; an expected error becomes one line and exit status 1."""
    try:
        arguments.call(arguments)
    except (ValueError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
