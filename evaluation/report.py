"""Tables and claims of one grid, from what is stored."""

from __future__ import annotations

from pathlib import Path

from evaluation import claims, costs, origin, tables
from evaluation.results import Results
from training.configuration import read_yaml
from training.files import replacing


def render_tables(results: Results, out: Path) -> list[Path]:
    """Every requested table and each run's cost as csv, md and tex, in a folder that is whole or absent."""
    provenances = results.provenance()
    methods = dict(results.scores[["run", "method"]].drop_duplicates().itertuples(index=False))
    version = origin.sentence(provenances)
    with replacing(out) as temporary:
        temporary.mkdir()
        written = tables.render(
            results.scores,
            read_yaml(Path("config/tables.yaml")),
            origin.marked(results.settings["methods"], methods, provenances),
            read_yaml(Path("config/published.yaml")),
            temporary,
            requested=results.settings["tables"],
            bases=results.settings["bases"],
            version=version,
            images=results.images,
        )
        written += costs.render(costs.per_run(provenances), version, temporary)
    return [out / path.name for path in written]


def judge_claims(results: Results, stated: Path, out: Path) -> None:
    """``out`` (.md) and the same in JSON beside it."""
    blocks = claims.evidence_of(
        results.scores,
        results.images,
        results.histories(),
        results.settings["proxies"],
        results.suites,
        results.settings["bases"],
    )
    claims.write(blocks, results.mixture_scores(), stated, out)
