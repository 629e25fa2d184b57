"""Ranks: the operating system's processes that train one run together, through accelerate.

Every rank holds the whole policy and a share of an iteration's images. Rewards are gathered and
gradients added up, so the number of ranks does not enter the result. One rank needs no launcher,
several have any that accelerate understands:

    torchrun --nproc_per_node 4 -m training run results/runs/RUN
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather, gather_object, reduce

T = TypeVar("T")
TIMEOUT = "GOODHART_PROCESS_TIMEOUT"  # environment: minutes that processes wait for each other
# NCCL's own ten minutes are less than one process may need alone: to read a pipeline from a network disk, to
# load a reward's 17 GB. A process that has died ends the others at once, whatever this says.
DEFAULT_TIMEOUT = 120


def timeout() -> timedelta:
    """How long processes wait for each other. Raises ``ValueError`` naming the variable."""
    given = os.environ.get(TIMEOUT, "") or str(DEFAULT_TIMEOUT)
    try:
        minutes = float(given)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes < float("inf"):
        raise ValueError(f"{TIMEOUT} is {given!r}; valid: minutes, a number above 0")
    return timedelta(minutes=minutes)


class Ranks:
    """This rank among all. ``device`` is "cpu", or "cuda" for the accelerator of each rank."""

    def __init__(self, device: str = "cpu"):
        self._state = PartialState(cpu=device == "cpu", timeout=timeout())
        self.count, self.index = self._state.num_processes, self._state.process_index
        self.main = self._state.is_main_process
        self.device = self._state.device

    def share(self, images: int) -> slice:
        """Which of ``images`` this rank makes. Raises ``ValueError`` if the shares would differ."""
        if images % self.count:
            raise ValueError(
                f"{images} images per iteration (prompts_per_iteration x group_size) cannot be shared "
                f"equally by {self.count} processes"
            )
        size = images // self.count
        return slice(self.index * size, (self.index + 1) * size)

    def gather(self, values: torch.Tensor) -> torch.Tensor:
        """The (n, ...) of every rank in order, (count * n, ...), on the CPU."""
        if self.count == 1:
            return values.cpu()
        return gather(values.to(self.device).contiguous()).cpu()

    def add_up(self, gradients: list[torch.Tensor]) -> None:
        """Replace each tensor by its sum over the ranks, in one message."""
        if self.count == 1:
            return
        flat = reduce(torch.cat([g.flatten() for g in gradients]), reduction="sum")
        for gradient, total in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(total.view_as(gradient))

    def gather_objects(self, value: T) -> list[T]:
        """The ``value`` of every rank, in order; it is pickled on its way."""
        return [value] if self.count == 1 else gather_object([value])

    def wait(self) -> None:
        self._state.wait_for_everyone()

    @property
    def first_of_node(self) -> bool:
        return self._state.is_local_main_process

    @property
    def on_node(self) -> tuple[int, int]:
        """This process's number among those of its node, and how many they are."""
        return self._state.local_process_index, int(os.environ.get("LOCAL_WORLD_SIZE", self.count))

    @contextmanager
    def node_folder(self) -> Iterator[Path]:
        """A temporary folder that the ranks of a node share, gone after the block."""
        names = [uuid.uuid4().hex]
        if self.count > 1:
            broadcast_object_list(names)
        node = self.index - self._state.local_process_index  # nodes may share the file system
        folder = Path(tempfile.gettempdir()) / f"goodhart-{names[0]}-{node}"
        if self.first_of_node:
            folder.mkdir(mode=0o700)
        try:
            self.wait()
            yield folder
            self.wait()
        finally:
            if self.first_of_node:
                shutil.rmtree(folder, ignore_errors=True)
