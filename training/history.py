"""The numbers of a run over its iterations."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from core.tables import write_table


class History:
    """Rows (step, name, value). Wall times are kept out, so that a resumed run has the same history."""

    def __init__(self, rows: list[tuple[int, str, float]] | None = None):
        self.rows: list[tuple[int, str, float]] = []
        self._index: dict[tuple[int, str], int] = {}
        for step, name, value in rows or []:
            self.add(step, name, value)

    def add(self, step: int, name: str, value: float) -> None:
        """Record one number; a second one of the same name and step is added to the first."""
        key, value = (step, name), float(value)
        if key in self._index:
            value += self.rows[self._index[key]][2]
            self.rows[self._index[key]] = (step, name, value)
        else:
            self._index[key] = len(self.rows)
            self.rows.append((step, name, value))

    def value(self, step: int, name: str) -> float:
        return self.rows[self._index[step, name]][2]

    def save(self, path: Path) -> None:
        table = pd.DataFrame(self.rows, columns=["step", "name", "value"])
        table = table.astype({"step": "int64", "name": "str", "value": "float64"})
        write_table(table, path)
