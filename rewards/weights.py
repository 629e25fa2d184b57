"""Weights that ship with the suite: every file under ``resources/`` must match ``resources/SHA256SUMS``."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import safetensors.torch
import torch

from core.files import sha256, write_text

RESOURCES = Path(__file__).resolve().parents[1] / "resources"
SUMS = "SHA256SUMS"
SUFFIXES = (".safetensors", ".json", ".txt")
HUB = "hub/"  # names with this prefix stand for a repository's commit; see rewards.published.hub
REBUILD = "snakemake --cores all rebuild_base"


class WeightsError(ValueError):
    """A shipped file is missing or is not the one whose checksum was recorded."""


def read_checksums(resources_dir: Path) -> dict[str, str]:
    """Path relative to ``resources_dir`` -> sha256, from ``SHA256SUMS`` (the format of ``sha256sum``)."""
    path = Path(resources_dir) / SUMS
    if not path.exists():
        raise WeightsError(f"{path} does not exist; rebuild the shipped weights with: {REBUILD}")
    recorded = {}
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        digest, separator, name = line.partition("  ")
        if not separator or len(digest) != 64:
            raise WeightsError(f"{path}, line {number}: not '<sha256>  <path>'")
        recorded[name] = digest
    return recorded


def write_checksums(resources_dir: Path) -> Path:
    """Hash every weight and config file under ``resources_dir``; returns the path of ``SHA256SUMS``."""
    root = Path(resources_dir)
    files = sorted(p for p in root.rglob("*") if p.is_file() and p.suffix in SUFFIXES and p.name != SUMS)
    path = root / SUMS
    write_text(path, "".join(f"{sha256(file)}  {file.relative_to(root).as_posix()}\n" for file in files))
    return path


def _check(path: Path, name: str, found: str, recorded: dict[str, str]) -> None:
    if name not in recorded:
        raise WeightsError(f"{path} has no checksum in {SUMS}; rebuild it with: {REBUILD}")
    if found != recorded[name]:
        raise WeightsError(
            f"{path} does not match {SUMS}: expected sha256 {recorded[name]}, found {found}; "
            f"rebuild it with: {REBUILD}"
        )


def _existing(resources_dir: Path, name: str) -> Path:
    path = Path(resources_dir) / name
    if not path.is_file():
        raise WeightsError(f"{path} is missing; rebuild it with: {REBUILD}")
    return path


def verify(resources_dir: Path, relative_paths: Iterable[str]) -> None:
    """Raise ``WeightsError`` for the first file that is missing, unrecorded or changed.

    Names below ``HUB`` are no files and are skipped.
    """
    recorded = read_checksums(resources_dir)
    for name in relative_paths:
        if name.startswith(HUB):
            continue
        path = _existing(resources_dir, name)
        _check(path, name, sha256(path), recorded)


def load_weights(relative_path: str, resources_dir: Path | None = None) -> dict[str, torch.Tensor]:
    """The tensors of ``resources/<relative_path>`` (safetensors), checked against its recorded sha256."""
    root = Path(resources_dir or RESOURCES)
    path = _existing(root, relative_path)
    content = path.read_bytes()  # hash and parse the same bytes
    _check(path, relative_path, hashlib.sha256(content).hexdigest(), read_checksums(root))
    return safetensors.torch.load(content)
