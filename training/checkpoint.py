"""Training state on disk: safetensors for tensors, JSON for numbers; whole or absent, checked when read."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from core.files import read_tensors, replacing, sha256

_PREFIX = "iteration_"
KEPT = 2  # checkpoints: the newest, and the one before for the day it turns out damaged
TENSORS, NUMBERS = "state.safetensors", "state.json"


def _digest(numbers: dict, tensors: str) -> str:
    return hashlib.sha256(json.dumps([numbers, tensors], sort_keys=True).encode()).hexdigest()


def save(folder: Path, iteration: int, tensors: dict[str, torch.Tensor], numbers: dict) -> None:
    """Write ``folder/iteration_000040`` and drop all older ones but the last afterwards."""
    target = folder / f"{_PREFIX}{iteration:06d}"
    with replacing(target) as temporary:
        temporary.mkdir()
        save_file({k: v.contiguous() for k, v in tensors.items()}, temporary / TENSORS)
        digest = sha256(temporary / TENSORS)
        stored = {"numbers": numbers, "tensors_sha256": digest, "sha256": _digest(numbers, digest)}
        (temporary / NUMBERS).write_text(json.dumps(stored))
    for old in sorted(folder.glob(f"{_PREFIX}*"))[:-KEPT]:
        shutil.rmtree(old)


def load_latest(folder: Path) -> tuple[dict[str, torch.Tensor], dict] | None:
    """Tensors and numbers of the newest whole checkpoint, or None where there is none at all.

    Of a damaged one a line on standard error says so, and the one before is taken.

    Raises:
        ValueError: all are damaged.
    """
    found = sorted(folder.glob(f"{_PREFIX}*"), reverse=True) if folder.exists() else []
    for path in found:
        try:
            return _load(path)
        except ValueError as error:
            print(f"warning: {error}; it is not used", file=sys.stderr)
    if found:
        raise ValueError(f"no checkpoint in {folder} is whole: delete the folder to train from the start")
    return None


def _load(path: Path) -> tuple[dict[str, torch.Tensor], dict]:
    try:
        stored = json.loads((path / NUMBERS).read_text())
        numbers, digest = stored["numbers"], stored["tensors_sha256"]
        whole = stored["sha256"] == _digest(numbers, digest) and sha256(path / TENSORS) == digest
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ValueError(f"{path / NUMBERS} is damaged ({error})") from None
    if not whole:
        raise ValueError(f"{path} is damaged: its checksums are others")
    return read_tensors(path / TENSORS), numbers
