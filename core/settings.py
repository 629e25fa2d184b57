"""Settings from YAML files, read into types: one message names file, key, value and what is valid."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

T = TypeVar("T", bound=BaseModel)


class ConfigError(ValueError):
    """One message that names the file, the key and the valid values."""


class Settings(BaseModel):
    """Settings that nobody changes; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


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
        value = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path} must hold a mapping")
    return value


def parse(model: type[T], value: dict, where: str) -> T:
    """Validate ``value``. Raises ``ConfigError`` with every wrong key, its file and what is valid."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(e, model, where) for e in error.errors())) from None


def _explain(error: dict, model: type[BaseModel], where: str) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        fields = _fields_at(model, error["loc"][:-1])
        return f"{where}: unknown key {key!r}; valid keys: {', '.join(fields)}"
    if error["type"] == "missing":
        return f"{where}: key {key!r} is missing"
    return f"{where}: key {key!r} is {error['input']!r}: {error['msg']}"


def _fields_at(model: type[BaseModel], location: tuple) -> list[str]:
    for part in location:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            model = annotation
    return sorted(model.model_fields)
