"""Prompt files: one JSON object a line, in GenEval's metadata schema (arXiv 2310.11513).

A prompt is a dict ``{"tag", "prompt", "include": [{"class", "count", "color"?, "position"?}], ...}``;
``scenes/prompts.py`` says what the keys mean.

A set of image-to-video gives the first frame of every clip: ``first_frame`` is a picture's path, relative to
the prompt file's folder, or the seed with which the embedded world draws the clip (``scenes.motion``).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import ConfigDict, Field, model_validator

from core.settings import ConfigError, Settings, parse

MOST_OBJECTS = 1000  # of one class in a prompt
FIRST_FRAME = "first_frame"
_Seed = Annotated[int, Field(ge=0, strict=True)]
_Picture = Annotated[str, Field(min_length=1, strict=True)]
Skill = Literal["object", "attribute", "count", "position", "verb"]  # GenEval 2, arXiv 2512.16853
SKILLS: tuple[str, ...] = get_args(Skill)


class _Objects(Settings):
    """A clause: so many objects of a class."""

    model_config = ConfigDict(extra="allow")

    name: str = Field(alias="class", min_length=1)
    count: int = Field(ge=1, le=MOST_OBJECTS, strict=True)
    color: str | None = None
    position: tuple[str, int] | None = None


class _Sign(Settings):
    """Text on a surface of a colour."""

    text: str = Field(min_length=1)
    color: str = Field(min_length=1)


class _Question(Settings):
    """What a model is to answer about an image of the prompt."""

    skill: Skill
    question: str = Field(min_length=1)
    answer: str = Field(min_length=1)


class _Prompt(Settings):
    """The part of a prompt that has a meaning here; sets may have keys of their own."""

    model_config = ConfigDict(extra="allow")

    tag: str = Field(min_length=1)
    prompt: str = Field(min_length=1)
    include: list[_Objects] = []
    exclude: list[_Objects] = []
    sign: _Sign = Field(default=None)  # where it stands it is one
    background: str = Field(default=None)
    questions: list[_Question] = Field(default=None, min_length=1)
    first_frame: _Seed | _Picture = Field(default=None)

    @model_validator(mode="after")
    def _positions(self):
        for item in self.include:
            if item.position is not None and not 0 <= item.position[1] < len(self.include):
                raise ValueError(
                    f"key 'position' names the object {item.position[1]}; valid: 0 to {len(self.include) - 1}"
                )
        return self


def read(path: Path) -> list[dict]:
    """Read a prompt file; what is not a prompt raises ``ValueError`` with file, line and key."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no text in UTF-8 (byte {error.start})") from None
    prompts = []
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else [], start=1):
        where = f"{path}, line {number}"
        try:
            prompt: Any = json.loads(line, parse_constant=_refused)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{where}: not a prompt with 'tag' and 'prompt' ({error})") from None
        if not isinstance(prompt, dict):
            raise ConfigError(f"{where}: not a prompt with 'tag' and 'prompt'")
        parse(_Prompt, prompt, where)
        if prompts and (FIRST_FRAME in prompt) != (FIRST_FRAME in prompts[0]):
            raise ConfigError(f"{where}: key {FIRST_FRAME!r} stands in some lines; valid: in all, or in none")
        prompts.append(prompt)
    if not prompts:
        raise ConfigError(f"{path}: holds no prompt")
    return prompts


def _refused(constant: Literal["NaN", "Infinity", "-Infinity"]):
    raise ValueError(f"{constant} is no number")


def count_objects(prompt: dict) -> int:
    """Objects that a prompt asks for."""
    return sum(item["count"] for item in prompt.get("include", []))
