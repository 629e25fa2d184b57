"""What a grid has stored, read once for everything that is rendered from it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import Field

from core.settings import Settings, parse, read_yaml
from core.tables import read_table, write_table
from evaluation import scores as stored_scores
from evaluation.scores import RUN, Scores


class OwnSuite(Settings):
    name: str
    prompts: str


class RenderingSettings(Settings):
    """What the workflow says of the grid: ``results/config/rendering.yaml``."""

    methods: dict[str, str] = Field({}, description="labels in the grid's order")
    bases: list[str] = Field([], description="base models in the grid's order, the main one first")
    proxies: dict[str, str] = Field({}, description="by task the metric that stands for its proxy")
    suites: dict[str, OwnSuite] = Field({}, description="each task's own suite")
    tables: list[str] = Field([], description="tables that must have rows")


@dataclass(frozen=True)
class Results:
    """``scores`` may lack single images, ``mixture`` may be None."""

    folder: Path
    settings: RenderingSettings
    scores: Scores
    mixture: Path | None

    def places(self) -> list[tuple[str, str]]:
        """Base models and tasks, in the order of the scores."""
        return list(dict.fromkeys(self.scores.table[["base", "task"]].itertuples(index=False, name=None)))

    def run(self, name: str) -> Path:
        return self.folder / "runs" / name

    @cached_property
    def histories(self) -> pd.DataFrame:
        """All training histories with the columns of their run; runs without a history are left out."""
        parts = [pd.DataFrame(columns=[*RUN, "step", "name", "value"])]
        for row in self.scores.table[RUN].drop_duplicates().itertuples(index=False):
            path = self.run(row.run) / "history.parquet"
            if path.exists():
                history = read_table(path)
                parts.append(history.assign(**row._asdict()))
        return pd.concat([p for p in parts if len(p)] or parts, ignore_index=True)

    @cached_property
    def provenance(self) -> dict[str, dict[str, Any]]:
        """provenance.json of every run."""
        runs = sorted(self.scores.table["run"].unique())
        return {run: json.loads((self.run(run) / "provenance.json").read_text()) for run in runs}

    def votes(self) -> pd.DataFrame | None:
        """People's votes, where they have been counted (``python -m voting close``)."""
        path = self.folder / "votes.parquet"
        return read_table(path) if path.exists() else None

    def mixture_scores(self) -> pd.DataFrame | None:
        return None if self.mixture is None else read_table(self.mixture / "scores.parquet")


def read(scores: Path, settings: Path, images: Path | None = None, mixture: Path | None = None) -> Results:
    """Args as on the command line; ``scores`` lies in the results folder."""
    known = parse(RenderingSettings, read_yaml(settings), str(settings))
    own = {task: suite.name for task, suite in known.suites.items()}
    return Results(scores.parent, known, stored_scores.load(scores, images, own), mixture)


def collect(folders: list[Path], out: Path, out_images: Path) -> None:
    """One table of all runs' scores, ordered by run, step, suite and metric, and one of their images."""
    table = pd.concat([read_table(f / "scores.parquet") for f in folders], ignore_index=True)
    table = table.sort_values(["run", "step", "suite", "metric"], kind="stable").reset_index(drop=True)
    images = [read_table(f / "image_scores.parquet") for f in folders]
    write_table(stored_scores.weighted(pd.concat(images, ignore_index=True)), out_images)
    write_table(table, out)
