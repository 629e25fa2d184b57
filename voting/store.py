"""Votes as lines of a file that is only ever appended to.

A vote that was acknowledged is on the disk: a line is written by one call under a lock and synchronised
before the answer. What a killed server left of a line is no vote, and the next line starts after it.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
import zlib
from pathlib import Path

CHOICES = ("left", "right", "tie", "bad")
VOTES = "votes.jsonl"


def _sum(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"


def append(folder: Path, vote: dict) -> None:
    """Add one vote; when this returns it is on the disk."""
    text = json.dumps(vote | {"time": round(time.time(), 3)}, sort_keys=True)
    line = f"{_sum(text)} {text}\n".encode()
    with open(folder / VOTES, "ab+", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else b"\n" + line  # after what a killed server has left
        if file.write(line) != len(line):
            raise OSError(f"{folder / VOTES}: the disk is full")
        os.fsync(file.fileno())


def read(folder: Path) -> list[dict]:
    """Votes in the order in which they came; a voter's first on a pair counts. Broken lines are left out."""
    path, found = folder / VOTES, {}
    if not path.exists():
        return []
    for line in path.read_bytes().decode(errors="replace").splitlines():
        digest, _, text = line.partition(" ")
        if digest != _sum(text):
            continue
        vote = json.loads(text)
        found.setdefault((vote["voter"], vote["pair"]), vote)
    return list(found.values())
