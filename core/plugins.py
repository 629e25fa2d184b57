"""Plug-ins: a file of a package is one, and its name is what configurations call it."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Plugins(Generic[T]):
    """The plug-ins of ``package``: subclasses of ``base`` whose ``name`` is that of their file.

    ``kind`` names them in messages. A file is told by its text, so that listing the plug-ins imports none of
    them; whatever else lies in the package is none.
    """

    package: str
    kind: str
    base: type[T]

    def names(self) -> list[str]:
        """Every registered plug-in."""
        files = (file for folder in self._folders() for file in folder.glob("*.py"))
        return sorted(file.stem for file in files if self._is_plugin(file))

    def get(self, name: str) -> type[T]:
        """The class of a plug-in. Raises ``ValueError`` with the valid names for an unknown one."""
        files = [folder / f"{name}.py" for folder in self._folders()] if name.isidentifier() else []
        if not any(self._is_plugin(file) for file in files if file.is_file()):
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

    def _folders(self) -> list[Path]:
        return [Path(folder) for folder in importlib.import_module(self.package).__path__]

    def _is_plugin(self, file: Path) -> bool:
        return (
            re.search(rf"^    name(: [^=]+)? = [\"']{file.stem}[\"']", file.read_text(), re.MULTILINE)
            is not None
        )
