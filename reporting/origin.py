"""Which commits the runs were made from, and which of them nobody can check out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MARK = "§"


def is_dirty(provenance: Mapping[str, Any]) -> bool:
    """Whether the run's code is not that of its commit, or there was no commit."""
    return provenance["git"]["dirty"] is not False


def commit(provenance: Mapping[str, Any]) -> str:
    return (provenance["git"]["commit"] or "no commit")[:9]


def marked(labels: Mapping[str, str], methods: Mapping[str, str], provenances: Mapping[str, Any]) -> dict:
    """Labels with a mark behind those of methods that have such a run; ``methods``: run -> method."""
    dirty = {methods[run] for run, provenance in provenances.items() if is_dirty(provenance)}
    return {name: f"{label} {MARK}" if name in dirty else label for name, label in labels.items()}


def sentence(provenances: Mapping[str, Any]) -> str:
    """A caption's last line: every commit, and what the mark means where there is one."""
    commits = ", ".join(sorted({commit(p) for p in provenances.values()}))
    dirty = sum(is_dirty(p) for p in provenances.values())
    meaning = (
        f" {MARK}: {dirty} of {len(provenances)} runs were made from code that is not committed."
        if dirty
        else ""
    )
    return f"Commit {commits}.{meaning}"
