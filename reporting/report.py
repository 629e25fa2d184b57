"""Tables, claims and the instrument's verdicts of one grid, from what is stored."""

from __future__ import annotations

import functools
from pathlib import Path

from core.files import replacing
from reporting import (
    claims,
    comparison,
    costs,
    instrument,
    origin,
    standing,
    tables,
    trajectories,
    trajectory_tables,
)
from reporting.evidence import evidence_in
from reporting.layout import load_course, load_layout, load_published
from reporting.results import Results


def render_tables(results: Results, out: Path, judged: Path) -> list[Path]:
    """Every requested table, the comparison over tasks and each run's cost as csv, md, tex and html, in a
    folder that is whole or absent. ``judged``: instrument.json, which every caption of results quotes."""
    scores, settings = results.scores, results.settings
    methods = dict(scores.table[["run", "method"]].drop_duplicates().itertuples(index=False))
    layout, course = load_layout(), load_course()
    labels = origin.marked(settings.methods, methods, results.provenance)
    compared = comparison.compare(
        scores.table, labels, settings.proxies, baseline=layout.baseline, base_method=layout.base_method
    )
    version = origin.sentence(results.provenance)
    note = functools.partial(standing.sentence, standing.read(judged))
    common = {"bases": settings.bases, "version": version, "note": note}
    with replacing(out) as temporary:
        temporary.mkdir()
        written = tables.render(
            scores,
            layout,
            labels,
            load_published(),
            temporary,
            requested=[name for name in settings.tables if name not in course.tables],
            **common,
        )
        written += trajectory_tables.render(
            trajectories.windowed(results.histories, course.windows),
            trajectory_tables.roles_of(scores.table),
            course,
            layout,
            labels,
            temporary,
            requested=settings.tables,
            **common,
        )
        written += comparison.render(compared, labels, layout.baseline, temporary, note(results.places()))
        written += costs.render(costs.per_run(scores, results.provenance, layout), layout, version, temporary)
    return [out / path.name for path in written]


def check_instrument(results: Results, settings: Path, out: Path) -> None:
    """``out`` (.md), and the same in JSON and HTML beside it."""
    instrument.write(evidence_in(results), settings, out)


def judge_claims(results: Results, stated: Path, out: Path, judged: Path) -> None:
    """``out`` (.md), and the same in JSON and HTML beside it. ``judged``: instrument.json."""
    claims.write(evidence_in(results), results.mixture_scores(), stated, out, standing.read(judged))
