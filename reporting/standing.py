"""What the checks of the instrument mean for a base model and task; read from ``results/instrument.json``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Place = tuple[str, str]  # base model and task


@dataclass(frozen=True)
class Standing:
    """``reading``: how claims are judged there; ``text``: the same in a few words, with what failed."""

    reading: Literal["against base", "against the control", "not testable"]
    text: str
    reason: str = ""


@dataclass(frozen=True)
class Instrument:
    """``untrained`` and ``shuffled``: methods; ``controls``: those that no pattern of a claim means."""

    untrained: str = ""
    shuffled: str = ""
    controls: tuple[str, ...] = ()
    standings: Mapping[Place, Standing] = field(default_factory=dict)

    def at(self, place: Place) -> Standing | None:
        """None where there is nothing to check, as in the Gaussian mixture."""
        return self.standings.get(place)


def read(path: Path) -> Instrument:
    """What ``reporting.instrument.write`` has written."""
    stored = json.loads(path.read_text())
    rows = stored["rows"]
    standings = {
        (s["base"], s["task"]): Standing(s["reading"], s["text"], s["reason"]) for s in stored["standings"]
    }
    return Instrument(rows["untrained"], rows["shuffled"], tuple(stored["controls"]), standings)


def sentence(instrument: Instrument, places: Iterable[Place]) -> str:
    """One line for a caption: which of its base models and tasks the instrument can judge."""
    places = list(dict.fromkeys(places))
    one_base = len({base for base, _ in instrument.standings}) == 1
    parts = []
    for base, task in places:
        standing = instrument.at((base, task))
        name = task if one_base else f"{base}, {task}"
        parts.append(f"{name}: {standing.text if standing else 'not measured'}")
    return f"Instrument (instrument.md): {'; '.join(parts)}."
