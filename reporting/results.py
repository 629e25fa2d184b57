"""What a grid has stored, read once for everything that is rendered from it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from reporting import image_scores
from reporting.image_scores import ByImage
from training.configuration import read_yaml

RUN = ["run", "base", "task", "method", "seed"]


@dataclass(frozen=True)
class Results:
    """``settings``: the workflow's rendering.yaml. ``images`` may be empty, ``mixture`` None."""

    folder: Path
    settings: dict[str, Any]
    scores: pd.DataFrame
    images: ByImage
    mixture: Path | None

    @property
    def suites(self) -> dict[str, str]:
        """Own suite of each task."""
        return {task: suite["name"] for task, suite in self.settings["suites"].items()}

    def places(self) -> list[tuple[str, str]]:
        """Base models and tasks, in the order of the scores."""
        return list(dict.fromkeys(self.scores[["base", "task"]].itertuples(index=False, name=None)))

    def run(self, name: str) -> Path:
        return self.folder / "runs" / name

    def histories(self) -> pd.DataFrame:
        """All training histories with the columns of their run; runs without a history are left out."""
        parts = [pd.DataFrame(columns=[*RUN, "step", "name", "value"])]
        for row in self.scores[RUN].drop_duplicates().itertuples(index=False):
            path = self.run(row.run) / "history.parquet"
            if path.exists():
                history = pd.read_parquet(path)
                parts.append(history.assign(**row._asdict()))
        return pd.concat([p for p in parts if len(p)] or parts, ignore_index=True)

    def provenance(self) -> dict[str, dict[str, Any]]:
        """provenance.json of every run."""
        runs = sorted(self.scores["run"].unique())
        return {run: json.loads((self.run(run) / "provenance.json").read_text()) for run in runs}

    def mixture_scores(self) -> pd.DataFrame | None:
        return None if self.mixture is None else pd.read_parquet(self.mixture / "scores.parquet")


def read(scores: Path, settings: Path, images: Path | None = None, mixture: Path | None = None) -> Results:
    """Args as on the command line; ``scores`` lies in the results folder."""
    return Results(
        scores.parent, read_yaml(settings), pd.read_parquet(scores), image_scores.load(images), mixture
    )
