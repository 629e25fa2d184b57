"""Plug-ins: a file of a package is one, and its name is what configurations call it."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Set
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Plugins(Generic[T]):
    """The plug-ins of ``package``: subclasses of ``base`` whose ``name`` is that of their file.

    ``kind`` names them in messages. Sub-packages, names with an underscore and ``helpers`` are none.
    """

    package: str
    kind: str
    base: type[T]
    helpers: Set[str]

    def names(self) -> list[str]:
        """Every registered plug-in."""
        path = importlib.import_module(self.package).__path__
        found = (m.name for m in pkgutil.iter_modules(path) if not m.ispkg)
        return sorted(n for n in found if not n.startswith("_") and n not in self.helpers)

    def get(self, name: str) -> type[T]:
        """The class of a plug-in. Raises ``ValueError`` with the valid names for an unknown one."""
        if name not in self.names():
            raise ValueError(f"unknown {self.kind} {name!r}; valid: {', '.join(self.names())}")
        module = importlib.import_module(f"{self.package}.{name}")
        for value in vars(module).values():
            if (
                isinstance(value, type)
                and issubclass(value, self.base)
                and getattr(value, "name", None) == name
            ):
                return value
        file = f"{self.package.replace('.', '/')}/{name}.py"
        raise ValueError(f"{file} holds no {self.base.__name__} subclass with name = {name!r}")
