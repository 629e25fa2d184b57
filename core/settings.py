"""Settings from YAML files, read into types: one message names file, key, value and what is valid."""

from __future__ import annotations

import re
import typing
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, field_validator

T = TypeVar("T", bound=BaseModel)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
SHOWN = 80  # characters of a wrong value in a message


class ConfigError(ValueError):
    """One message that names the file, the key and the valid values."""


def check_name(name: object) -> str:
    """``name``, if it can be a file's and a shell may see it. Raises ``ValueError``."""
    if not isinstance(name, str) or not NAME.fullmatch(name) or "__" in name or len(name) > 80:
        raise ValueError(
            f"{_short(name)} is no name; valid: a letter or digit, then letters, digits, '.', '_' and '-', "
            "no two underscores in a row, 80 at most"
        )
    return name


Name = Annotated[str, AfterValidator(check_name)]  # of a file of config/, a suite, a row: it becomes a path


class Settings(BaseModel):
    """Settings that nobody changes; an unknown key is an error, and so is a boolean in a number's place."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean_for_a_number(cls, value, info):
        if _holds_boolean(value) and not _admits(cls.model_fields[info.field_name].annotation, bool):
            raise ValueError("a boolean stands where none is valid")
        return value


def _holds_boolean(value: object) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return isinstance(value, bool) or any(map(_holds_boolean, inner))


def _admits(annotation: object, wanted: type) -> bool:
    """Whether a type is ``wanted``, anything, settings that check themselves, or has one among its parts."""
    if annotation in (wanted, Any, dict) or isinstance(annotation, TypeVar):
        return True
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return True
    parts = typing.get_args(annotation)
    return any(isinstance(part, wanted) or _admits(part, wanted) for part in parts)


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in a mapping: the last one would win silently."""

    def compose_mapping_node(self, anchor):
        node, seen = super().compose_mapping_node(anchor), set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.composer.ComposerError(
                        None, None, f"key {key.value!r} stands twice", key.start_mark
                    )
                seen.add(key.value)
        return node


def merged(base: dict, over: dict) -> dict:
    """``base`` with the keys of ``over`` laid on it; mappings are merged, everything else is replaced."""
    result = {**base, **over}
    for key in base.keys() & over.keys():
        if isinstance(base[key], dict) and isinstance(over[key], dict):
            result[key] = merged(base[key], over[key])
    return result


def read_yaml(path: Path) -> dict:
    """A YAML mapping. Raises ``ConfigError`` naming the file."""
    path = Path(path)
    if not path.exists():
        siblings = sorted(p.stem for p in path.parent.glob("*.yaml"))
        raise ConfigError(f"{path} does not exist; valid names: {', '.join(siblings) or 'none'}")
    try:
        value = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no text in UTF-8 (byte {error.start})") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{line}: {getattr(error, 'problem', None) or error}") from None
    except (ValueError, RecursionError) as error:  # a date such as 2020-99-99
        raise ConfigError(f"{path}: {error}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path} must hold a mapping")
    return value


def parse(model: type[T], value: dict, where: str) -> T:
    """Validate ``value``. Raises ``ConfigError`` with every wrong key, its file and what is valid."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(e, model, where) for e in error.errors())) from None


def _short(value: object) -> str:
    try:
        shown = repr(value)
    except ValueError:  # an integer of thousands of digits
        return "a number of too many digits"
    return shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}…"


def _explain(error: dict, model: type[BaseModel], where: str) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        fields = _fields_at(model, error["loc"][:-1])
        return f"{where}: unknown key {key!r}; valid keys: {', '.join(fields)}"
    if error["type"] == "missing":
        return f"{where}: key {key!r} is missing"
    message = error["msg"].removeprefix("Value error, ")
    return f"{where}: key {key!r} is {_short(error['input'])}: {message}" if key else f"{where}: {message}"


def _fields_at(model: type[BaseModel], location: tuple) -> list[str]:
    """Keys of the model at a place, which lists and mappings may lead to."""
    for part in location:
        if not (isinstance(part, str) and part in model.model_fields):
            continue  # an index or a name, of a list or mapping of the model at hand
        inner = _model_in(model.model_fields[part].annotation)
        model = inner or model
    return sorted(model.model_fields)


def _model_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in typing.get_args(annotation) if (found := _model_in(part))), None)
