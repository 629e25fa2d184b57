"""Tables, claims and the instrument's verdicts of one grid, from what is stored."""

from __future__ import annotations

import functools
from pathlib import Path

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
from reporting.results import Results
from training.configuration import read_yaml
from training.files import replacing


def render_tables(results: Results, out: Path, judged: Path) -> list[Path]:
    """Every requested table, the comparison over tasks and each run's cost as csv, md, tex and html, in a
    folder that is whole or absent. ``judged``: instrument.json, which every caption of results quotes."""
    provenances = results.provenance()
    methods = dict(results.scores[["run", "method"]].drop_duplicates().itertuples(index=False))
    version = origin.sentence(provenances)
    layout, requested = read_yaml(Path("config/tables.yaml")), results.settings["tables"]
    course = read_yaml(trajectories.LAYOUT)
    labels = origin.marked(results.settings["methods"], methods, provenances)
    compared = comparison.compare(
        results.scores,
        labels,
        results.settings["proxies"],
        results.suites,
        baseline=layout["baseline"],
        base_method=layout["base_method"],
    )
    note = functools.partial(standing.sentence, standing.read(judged))
    with replacing(out) as temporary:
        temporary.mkdir()
        written = tables.render(
            results.scores,
            layout,
            labels,
            read_yaml(Path("config/published.yaml")),
            temporary,
            requested=[name for name in requested if name not in course["tables"]],
            bases=results.settings["bases"],
            suites=results.suites,
            version=version,
            images=results.images,
            note=note,
        )
        written += trajectory_tables.render(
            trajectories.windowed(results.histories(), course["windows"]),
            trajectory_tables.roles_of(results.scores),
            course,
            layout,
            labels,
            temporary,
            requested=requested,
            bases=results.settings["bases"],
            version=version,
            note=note,
        )
        written += comparison.render(compared, labels, layout["baseline"], temporary, note(results.places()))
        written += costs.render(costs.per_run(provenances), version, temporary)
    return [out / path.name for path in written]


def check_instrument(results: Results, settings: Path, out: Path) -> None:
    """``out`` (.md), and the same in JSON and HTML beside it."""
    instrument.write(evidence_in(results), settings, out)


def judge_claims(results: Results, stated: Path, out: Path, judged: Path) -> None:
    """``out`` (.md), and the same in JSON and HTML beside it. ``judged``: instrument.json."""
    claims.write(evidence_in(results), results.mixture_scores(), stated, out, standing.read(judged))
