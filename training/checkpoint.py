"""Full training state on disk: safetensors for tensors, JSON for numbers; whole or absent."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from core.files import replacing

_PREFIX = "iteration_"


def save(folder: Path, iteration: int, tensors: dict[str, torch.Tensor], numbers: dict) -> None:
    """Write ``folder/iteration_000040`` and drop older ones afterwards."""
    target = folder / f"{_PREFIX}{iteration:06d}"
    with replacing(target) as temporary:
        temporary.mkdir()
        save_file({k: v.contiguous() for k, v in tensors.items()}, temporary / "state.safetensors")
        (temporary / "state.json").write_text(json.dumps(numbers))
    for old in folder.glob(f"{_PREFIX}*"):
        if old != target:
            shutil.rmtree(old)


def load_latest(folder: Path) -> tuple[dict[str, torch.Tensor], dict] | None:
    """Tensors and numbers of the newest checkpoint, or None."""
    found = sorted(folder.glob(f"{_PREFIX}*")) if folder.exists() else []
    if not found:
        return None
    return load_file(found[-1] / "state.safetensors"), json.loads((found[-1] / "state.json").read_text())
