"""Tables and figures of one grid, from stored scores and the workflow's ``rendering.yaml``."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from evaluation import costs, figures, origin, tables
from evaluation.sample_grid import sample_grid
from training.configuration import load_run, read_yaml
from training.files import replacing


def render_tables(scores: Path, settings: Path, out: Path) -> list[Path]:
    """Every requested table and each run's cost as csv, md and tex, in a folder that is whole or absent."""
    settings, table = read_yaml(settings), pd.read_parquet(scores)
    methods = dict(table[["run", "method"]].drop_duplicates().itertuples(index=False))
    folder = scores.parent / "runs"
    provenances = {run: json.loads((folder / run / "provenance.json").read_text()) for run in methods}
    version = origin.sentence(provenances)
    with replacing(out) as temporary:
        temporary.mkdir()
        written = tables.render(
            table,
            read_yaml(Path("config/tables.yaml")),
            origin.marked(settings["methods"], methods, provenances),
            read_yaml(Path("config/published.yaml")),
            temporary,
            requested=settings["tables"],
            bases=settings["bases"],
            version=version,
        )
        written += costs.render(costs.per_run(provenances), version, temporary)
    return [out / path.name for path in written]


def histories(runs: list[str], results: Path) -> pd.DataFrame:
    """All training histories with the columns of their run."""
    parts = []
    for run in runs:
        folder = results / "runs" / run
        config = load_run(folder)
        history = pd.read_parquet(folder / "history.parquet")
        parts.append(
            history.assign(
                run=run, base=config.base, task=config.task, method=config.method, seed=config.seed
            )
        )
    return pd.concat(parts, ignore_index=True)


def render_figures(scores: Path, settings: Path, out: Path) -> list[Path]:
    """Every figure as png and pdf."""
    settings, table = read_yaml(settings), pd.read_parquet(scores)
    history = histories(list(table["run"].unique()), scores.parent)
    with replacing(out) as temporary:
        temporary.mkdir()
        figures.learning_curves(history, temporary / "learning_curves", settings["methods"])
        figures.proxy_versus_gold(
            table, temporary / "proxy_versus_gold", settings["methods"], proxies=settings["proxies"]
        )
        figures.pareto(table, temporary / "pareto", settings["methods"], proxies=settings["proxies"])
        spec = read_yaml(Path("config/figures.yaml"))["sample_grid"]
        for base, task in table[["base", "task"]].drop_duplicates().itertuples(index=False):
            suite = settings["suites"][task]
            sample_grid(
                table,
                scores.parent,
                base,
                task,
                suite["name"],
                Path(suite["prompts"]),
                settings["methods"],
                spec,
                temporary / f"samples_{base}_{task}",
            )
        names = sorted(path.name for path in temporary.iterdir())
    return [out / name for name in names]
