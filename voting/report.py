"""Votes as tables: ``delta_vote`` and ``strength`` in every format of the suite's tables."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from reporting.table_files import write_table
from reporting.table_formats import Text, decimal
from voting import count


def _texts(*values: str) -> list[Text]:
    return [Text(value) for value in values]


def _bounds(row, digits: int) -> str:
    return f"{decimal(row.low, digits)} to {decimal(row.high, digits)}"


def _agreements(votes: pd.DataFrame) -> list[str]:
    told = []
    for found in count.agreement(votes):
        kappa = "not defined" if found.kappa is None else decimal(found.kappa, 2)
        told.append(
            f"{found.one} and {found.other}: {found.equal:.0%} of {found.pairs} pairs alike, kappa {kappa}."
        )
    return told or ["No two voters saw the same pair."]


def write(votes: pd.DataFrame, out: Path) -> list[Path]:
    """Files of both tables in ``out``; their captions say how far voters agree."""
    caption = [
        f"{len(votes)} votes of {votes['voter'].nunique()} voters. Intervals: {count.LEVEL:.0%}, bootstrap "
        "over prompts. Votes for neither count as half for each.",
        *_agreements(votes),
    ]
    written = []
    for (base, task), mine in votes.groupby(["base", "task"], sort=False):
        deltas, strong = count.delta_votes(mine), count.strengths(mine)
        head = _texts(
            "a", "b", "Δ-Vote, % for b − % for a", "interval", "a", "b", "equal", "both bad", "votes"
        )
        lines = [head]
        for row in deltas.itertuples():
            shares = (f"{100 * getattr(row, f'share_{name}'):.0f} %" for name in count.POINTS)
            numbers = decimal(row.delta_vote, 1), _bounds(row, 1), *shares, str(row.votes)
            lines.append(_texts(row.method_a, row.method_b, *numbers))
        title, where = "People's votes", f"{base}, {task}"
        written += write_table(out, f"delta_vote_{base}_{task}", title, deltas, [(where, lines)], caption)
        lines = [_texts("method", "log strength", "interval")]
        lines += [
            _texts(row.method, decimal(row.strength, 2), _bounds(row, 2)) for row in strong.itertuples()
        ]
        title = "Bradley–Terry strengths by people's votes"
        written += write_table(out, f"strength_{base}_{task}", title, strong, [(where, lines)], caption)
    return written
