"""Tables, claims and the instrument's verdicts of one grid, from what is stored."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import pandas as pd

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
from reporting.claim_tests import People
from reporting.claim_tests import load as load_claims
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
    blocks = with_votes(evidence_in(results), results.votes(), load_claims(stated).people)
    claims.write(blocks, results.mixture_scores(), stated, out, standing.read(judged))


def with_votes(blocks: list, votes: pd.DataFrame | None, least: People) -> list:
    """Evidence with people's votes, of every two methods between which there are enough."""
    if votes is None or votes.empty:
        return blocks
    key = ["base", "task", "method_a", "method_b"]
    groups = votes.groupby(key)["voter"]
    enough = (groups.transform("size") >= least.votes) & (groups.transform("nunique") >= least.voters)
    counted = votes[enough]

    def at(base: str, task: str) -> pd.DataFrame:
        return counted[(counted["base"] == base) & (counted["task"] == task)]

    return [(place, replace(evidence, people=at(*place))) for place, evidence in blocks]
