"""Where a result came from: commit, configuration, packages, hardware, cost."""

from __future__ import annotations

import json
import platform
import re
import resource
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import torch

from base_models.base import ADAPTER_FILE
from core.files import sha256
from core.tables import damaged

PACKAGES = (
    "torch",
    "diffusers",
    "transformers",
    "peft",
    "accelerate",
    "safetensors",
    "numpy",
    "scipy",
    "onnxruntime",
)


def digests(folder: Path) -> dict[str, str]:
    """sha256 of what a finished run leaves for others to read, by its path in the run's folder."""
    kept = [*folder.glob(f"**/{ADAPTER_FILE}"), folder / "history.parquet"]
    return {str(path.relative_to(folder)): sha256(path) for path in sorted(kept) if path.exists()}


def check_file(folder: Path, path: Path) -> None:
    """Raise ``DamagedFile`` where a file of a run is not the one that the run has left there."""
    recorded = json.loads((folder / "provenance.json").read_text()).get("files", {})
    expected = recorded.get(str(path.relative_to(folder)))
    if expected is not None and (not path.exists() or sha256(path) != expected):
        raise damaged(path, "not the file that the run has left")


def git_state(beside: str | None = None) -> dict[str, str | bool | None]:
    """Commit and whether a file differs from it or it lacks a Python file; None outside a repository.

    ``beside``: a folder whose files do not count.
    """
    but = [f":!{beside}"] if beside else []

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()

    try:
        dirty = bool(
            git("status", "--porcelain", "--untracked-files=no", ".", *but)
            or git("status", "--porcelain", "*.py", *but)
        )
        return {"commit": git("rev-parse", "HEAD"), "dirty": dirty}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}


def git_of_both(before: dict, now: dict) -> dict[str, str | bool | None]:
    """State of a run that was resumed: dirty if a part of it was, or if its parts are of two commits."""
    if before == now:
        return now
    return {**now, "dirty": before["dirty"] or now["dirty"] or before["commit"] != now["commit"]}


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as stream:
            names = [line.split(":", 1)[1].strip() for line in stream if line.startswith("model name")]
        return names[0] if names else platform.machine()
    except OSError:
        return platform.processor() or platform.machine()


def hardware() -> dict[str, str | int]:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {"processor": _processor(), "threads": torch.get_num_threads(), "accelerator": device}


def packages() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}


def peak_memory_mb() -> float:
    """Peak resident memory of this process in MB.

    On Linux not ``ru_maxrss``, which counts what the process that started this one by vfork had held.
    """
    status = Path("/proc/self/status")
    found = re.search(r"^VmHWM:\s*(\d+) kB", status.read_text(), re.MULTILINE) if status.exists() else None
    if found:
        return int(found[1]) / 1024
    unit = 1 if sys.platform == "darwin" else 1024  # bytes of ``ru_maxrss``
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
