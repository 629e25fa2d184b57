"""Which prompt sets there are, and what may be said of one before its file exists."""

from __future__ import annotations

import functools
import re
from pathlib import Path

from pydantic import Field, ValidationInfo, field_validator

from core.files import sha256
from core.settings import ConfigError, Settings, parse, read_yaml
from prompt_sets.counting import GENERATED
from prompt_sets.parsers import PARSERS

FILE = Path("config/prompt_sets.yaml")
FOLDER = Path("results/prompts")
SUMS = {"sha256": 64, "git_blob": 40}  # kinds of sums and their hexadecimal digits


class SourceFile(Settings):
    """One file of a set. Either sum identifies its content; without one the commit in the address does."""

    url: str = Field(description="address with {revision} in it, so that it names one version")
    sha256: str | None = None
    git_blob: str | None = Field(None, description="object id of the file in its commit's tree")

    @property
    def recorded(self) -> dict[str, str]:
        """The sums that are written down, by kind."""
        return {kind: value for kind in SUMS if (value := getattr(self, kind)) is not None}

    @field_validator("url")
    @classmethod
    def _pinned(cls, value: str) -> str:
        if "{revision}" not in value:
            raise ValueError("an address needs {revision} in it")
        return value

    @field_validator(*SUMS)
    @classmethod
    def _hexadecimal(cls, value: str | None, info: ValidationInfo) -> str | None:
        digits = SUMS[info.field_name]
        if value is not None and not re.fullmatch(f"[0-9a-f]{{{digits}}}", value):
            raise ValueError(f"a {info.field_name} is {digits} hexadecimal digits, or null")
        return value


class PromptSetConfig(Settings):
    """One entry of ``config/prompt_sets.yaml``; a set of several files is their concatenation."""

    revision: str = Field(min_length=1, description="commit of the repository that holds the files")
    files: list[SourceFile] = Field(min_length=1)
    parser: str
    licence: str
    unique: bool = Field(False, description="keep the first of equal prompts")
    prompts: int | None = Field(None, ge=1, description="how many there must be; null: not known")

    @field_validator("parser")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in PARSERS:
            raise ValueError(f"valid parsers: {', '.join(sorted(PARSERS))}")
        return value

    def urls(self) -> list[str]:
        return [file.url.format(revision=self.revision) for file in self.files]


@functools.cache
def load(path: Path = FILE) -> dict[str, PromptSetConfig]:
    """The sets that are fetched, by name. Raises ``ConfigError`` naming file, set and key."""
    entries = {
        name: parse(PromptSetConfig, value, f"{path}: {name}") for name, value in read_yaml(path).items()
    }
    taken = sorted(entries.keys() & GENERATED.keys())
    if taken:
        raise ConfigError(f"{path}: {taken[0]!r} is the name of a generated set")
    return entries


def names() -> list[str]:
    """Every prompt set, fetched or generated."""
    return sorted([*load(), *GENERATED])


def set_of(path: Path) -> str | None:
    """The set whose file ``path`` is; None outside ``results/prompts``. Raises ``ConfigError``."""
    path = Path(path)
    if path.parent != FOLDER:
        return None
    if path.suffix != ".jsonl" or path.stem not in names():
        raise ConfigError(f"{path} is no prompt set of {FILE}; valid: {', '.join(names())}")
    return path.stem


def is_pending(path: Path) -> bool:
    """Whether a job will still write this file."""
    return set_of(path) is not None and not Path(path).exists()


def size(path: Path) -> int | None:
    """Number of prompts, also of a set whose file does not exist yet; None where nobody knows."""
    if not is_pending(path):
        return len(Path(path).read_text().splitlines())
    name = set_of(path)
    return len(GENERATED[name]()) if name in GENERATED else load()[name].prompts


def identity(path: Path) -> str:
    """Changes when the prompts change; a set keeps it when its file is made again."""
    name = set_of(path)
    if name is None:
        return sha256(Path(path))
    return name if name in GENERATED else load()[name].model_dump_json()
