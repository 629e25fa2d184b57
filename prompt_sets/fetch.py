"""Download, check, convert: a prompt set's file is whole and as recorded, or it is not there."""

from __future__ import annotations

import hashlib
import http.client
import json
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from prompt_sets.configuration import FILE, PromptSetConfig, load, names
from prompt_sets.counting import GENERATED
from prompt_sets.parsers import PARSERS
from training.files import write_text

TIMEOUT = 60  # seconds without a byte
CHUNK = 1 << 20


class PromptSetError(ValueError):
    """A set that cannot be made; the message names the set and the file."""


def download(url: str, target: Path, name: str) -> str:
    """Stream ``url`` into ``target``; returns its sha256. Raises ``PromptSetError``."""
    where = f"prompt set {name!r}: {url}"
    digest, received = hashlib.sha256(), 0
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as stream, target.open("wb") as file:
            while chunk := stream.read(CHUNK):
                file.write(chunk)
                digest.update(chunk)
                received += len(chunk)
            expected = stream.headers.get("Content-Length")
    except urllib.error.HTTPError as error:
        raise PromptSetError(f"{where}: the server answered {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        raise PromptSetError(f"{where}: cannot be read ({getattr(error, 'reason', None) or error})") from None
    if expected is not None and received != int(expected):
        raise PromptSetError(f"{where}: {received} of {expected} bytes came; try again")
    return digest.hexdigest()


def _parsed(path: Path, entry: PromptSetConfig, url: str, name: str) -> list[dict]:
    try:
        return PARSERS[entry.parser](path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PromptSetError(f"prompt set {name!r}: {url}: {error}") from None


def fetch(name: str, entry: PromptSetConfig) -> tuple[list[dict], dict[str, str]]:
    """Prompts of a set, and the sha256 by address of the files for which none is recorded."""
    prompts, unrecorded = [], {}
    for file, url in zip(entry.files, entry.urls(), strict=True):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            digest = download(url, path, name)
            if file.sha256 is None:
                unrecorded[url] = digest
            elif digest != file.sha256:
                raise PromptSetError(
                    f"prompt set {name!r}: {url} is not the file that was recorded: {FILE} has sha256 "
                    f"{file.sha256}, what came has {digest}"
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
    """Write the set as ``out`` (jsonl). Raises ``PromptSetError``, also where a sha256 is not recorded."""
    if name not in names():
        raise PromptSetError(f"unknown prompt set {name!r}; valid: {', '.join(names())}")
    if name in GENERATED:
        prompts = GENERATED[name]()
    else:
        prompts, unrecorded = fetch(name, load()[name])
        if unrecorded:
            found = "\n".join(f"  sha256: {digest}  # of {url}" for url, digest in unrecorded.items())
            raise PromptSetError(
                f"prompt set {name!r}: {FILE} records no sha256. What came just now, {len(prompts)} prompts, "
                f"has\n{found}\nCheck that it is what you want and write it there; nothing was kept."
            )
    write_text(out, "".join(json.dumps(p, sort_keys=True) + "\n" for p in prompts))
