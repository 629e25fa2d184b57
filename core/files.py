"""Files that are either whole or absent: written under a temporary name, then renamed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    import torch


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; it takes the name ``path`` only if the block succeeds.

    A folder that stood at ``path`` is replaced as a whole.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Nodes that share a file system may have equal process numbers.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(temporary, path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text)


def write_if_changed(path: Path, text: str) -> bool:
    """Leave an equal file alone, so that its time stamp triggers nothing. True if written."""
    if path.exists() and path.read_text() == text:
        return False
    write_text(path, text)
    return True


def write_json(path: Path, value) -> None:
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def to_yaml(value) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=110)


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a safetensors file. Raises ``ValueError`` naming a file that is missing or none."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read ({error}): delete it and start again") from None


def remove_leftovers(folder: Path, *, below: bool = False) -> None:
    """Remove what ``replacing`` has left in a folder, or also ``below`` it, when its process was killed.

    A database's journals are named after it (``-journal``, ``-wal``). Nobody else may be writing there.
    """
    for name in (".*.tmp", ".*.tmp-*"):
        for path in list(Path(folder).glob(f"**/{name}" if below else name)):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sort_metadata(path: Path) -> None:
    """Put a safetensors file's metadata in the order of its keys, so that equal weights are equal files.

    The library keeps metadata in a hash map and writes it in an order that differs from call to call. Only
    the header is read and written, however large the tensors are.
    """
    with open(path, "r+b") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) > length:
            raise ValueError(f"{path}: the header does not fit into its own {length} bytes")
        stream.seek(8)
        stream.write(text.ljust(length))
