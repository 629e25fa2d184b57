"""Download, check, convert: a prompt set's file is whole and as recorded, or it is not there."""

from __future__ import annotations

import hashlib
import http.client
import json
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from core.files import write_text
from prompt_sets.configuration import FILE, PromptSetConfig, load, names
from prompt_sets.counting import GENERATED
from prompt_sets.parsers import PARSERS

TIMEOUT = 60  # seconds without a byte
CHUNK = 1 << 20


class PromptSetError(ValueError):
    """A set that cannot be made; the message names the set and the file."""


def download(url: str, target: Path, name: str) -> None:
    """Stream ``url`` into ``target``. Raises ``PromptSetError``."""
    where = f"prompt set {name!r}: {url}"
    received = 0
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as stream, target.open("wb") as file:
            while chunk := stream.read(CHUNK):
                file.write(chunk)
                received += len(chunk)
            expected = stream.headers.get("Content-Length")
    except urllib.error.HTTPError as error:
        raise PromptSetError(f"{where}: the server answered {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        raise PromptSetError(f"{where}: cannot be read ({getattr(error, 'reason', None) or error})") from None
    if expected is not None and received != int(expected):
        raise PromptSetError(f"{where}: {received} of {expected} bytes came; try again")


def sums(path: Path) -> dict[str, str]:
    """The sums of a file by kind: its sha256, and the object id that git gives its content."""
    digests = {"sha256": hashlib.sha256(), "git_blob": hashlib.sha1(usedforsecurity=False)}
    digests["git_blob"].update(f"blob {path.stat().st_size}\0".encode())
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            for digest in digests.values():
                digest.update(chunk)
    return {kind: digest.hexdigest() for kind, digest in digests.items()}


def _parsed(path: Path, entry: PromptSetConfig, url: str, name: str) -> list[dict]:
    try:
        return PARSERS[entry.parser](path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PromptSetError(f"prompt set {name!r}: {url}: {error}") from None


def fetch(name: str, entry: PromptSetConfig) -> tuple[list[dict], dict[str, dict[str, str]]]:
    """Prompts of a set, and the sums by address of the files for which none is recorded."""
    prompts, unrecorded = [], {}
    for file, url in zip(entry.files, entry.urls(), strict=True):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            download(url, path, name)
            came = sums(path)
            if not file.recorded:
                unrecorded[url] = came
            for kind, value in file.recorded.items():
                if came[kind] != value:
                    raise PromptSetError(
                        f"prompt set {name!r}: {url} is not the file that was recorded: {FILE} has {kind} "
                        f"{value}, what came has {came[kind]}"
                    )
            prompts += _parsed(path, entry, url, name)
    if entry.unique:
        prompts = list({json.dumps(p, sort_keys=True): p for p in prompts}.values())
    if entry.prompts is not None and len(prompts) != entry.prompts:
        raise PromptSetError(
            f"prompt set {name!r}: {', '.join(entry.urls())}: {len(prompts)} prompts, "
            f"{FILE} says {entry.prompts}"
        )
    return prompts, unrecorded


def make(name: str, out: Path) -> None:
    """Write the set as ``out`` (jsonl). Raises ``PromptSetError``.

    A file without a recorded sum is taken as its address names it; standard error says what came.
    """
    if name not in names():
        raise PromptSetError(f"unknown prompt set {name!r}; valid: {', '.join(names())}")
    if name in GENERATED:
        prompts = GENERATED[name]()
    else:
        prompts, unrecorded = fetch(name, load()[name])
        for url, came in unrecorded.items():
            found = ", ".join(f"{kind} {value}" for kind, value in came.items())
            print(
                f"prompt set {name!r}: {FILE} records no sum of {url}, which its commit alone identifies; "
                f"what came has {found}",
                file=sys.stderr,
            )
    write_text(out, "".join(json.dumps(p, sort_keys=True) + "\n" for p in prompts))
