"""``python -m reporting.stored``: finished runs without their adapters and images, in a few small tables.

    python -m reporting.stored keep results/runs/* --out docs/results/raw
    python -m reporting.stored restore RUN ... --store docs/results/raw

A store is a folder with ``scores``, ``image_scores`` and ``histories`` (.parquet) of many runs, and
``runs.parquet`` with the settings (run.yaml), their hash and the provenance of each. A grid with
``stored_runs: FOLDER`` takes from it every run of the same hash instead of training it: a long grid goes on
where another machine left it, and tables are made anew from published numbers.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from core.command import run_command
from core.files import to_yaml, write_json
from core.settings import ConfigError
from core.tables import read_table, write_table
from evaluation.scores import RUN
from runs.configuration import load_run

RUNS = "runs.parquet"
TABLES = {"scores": "scores.parquet", "image_scores": "image_scores.parquet", "histories": "history.parquet"}
RESTORED = ("provenance.json", *TABLES.values())  # what a run folder gets back


def files() -> list[str]:
    """Names of the files of a store."""
    return [RUNS, *(f"{name}.parquet" for name in TABLES)]


def _write(table: pd.DataFrame, path: Path) -> None:
    write_table(table, path, compression="zstd")


def hashes(store: Path) -> dict[str, str]:
    """Run -> hash of its settings, for every run of the store. Raises ``ConfigError`` where there is none."""
    path = Path(store) / RUNS
    if not path.exists():
        raise ConfigError(f"key 'stored_runs' is {str(store)!r}; valid: a folder that holds {RUNS}")
    table = read_table(path, columns=["run", "hash"])
    return dict(zip(table["run"], table["hash"], strict=True))


def _of_run(folder: Path) -> dict[str, pd.DataFrame]:
    config = load_run(folder)
    provenance = (folder / "provenance.json").read_text()
    settings = to_yaml(config.content())
    row = {"run": config.run, "hash": config.hash, "settings": settings, "provenance": provenance}
    key = {name: getattr(config, name) for name in RUN}
    return {
        "runs": pd.DataFrame([row]),
        "scores": read_table(folder / TABLES["scores"]),
        "image_scores": read_table(folder / TABLES["image_scores"]).assign(run=config.run),
        "histories": read_table(folder / TABLES["histories"]).assign(**key),
    }


def keep(folders: Iterable[Path], store: Path) -> None:
    """Add finished runs to a store; a run of the same name is replaced.

    Raises:
        ConfigError: a folder is no finished and scored run.
    """
    found: dict[str, list[pd.DataFrame]] = {}
    for folder in map(Path, folders):
        missing = [name for name in ("run.yaml", *RESTORED) if not (folder / name).exists()]
        if missing:
            raise ConfigError(f"{folder} is no finished and scored run: it has no {', '.join(missing)}")
        for name, table in _of_run(folder).items():
            found.setdefault(name, []).append(table)
    for name, parts in found.items():
        path, new = Path(store) / f"{name}.parquet", pd.concat(parts, ignore_index=True)
        if path.exists():
            old = read_table(path)
            new = pd.concat([old[~old["run"].isin(set(new["run"]))], new], ignore_index=True)
        _write(new.sort_values("run", kind="stable"), path)


def restore(runs: list[str], store: Path, out: Path) -> None:
    """Write the runs' scores, histories and provenance into their folders under ``out``.

    Raises:
        ConfigError: the store does not hold a run.
    """
    kept = read_table(Path(store) / RUNS).set_index("run")
    for run in runs:
        if run not in kept.index:
            raise ConfigError(f"{store} holds no run {run!r}; valid: {', '.join(kept.index)}")
    tables = {name: read_table(Path(store) / f"{name}.parquet") for name in TABLES}
    for run in runs:
        for name, file in TABLES.items():
            table = tables[name][tables[name]["run"] == run]
            own = table.drop(columns=RUN) if name == "histories" else table  # as training has written it
            _write(own.reset_index(drop=True), out / run / file)
        write_json(out / run / "provenance.json", json.loads(kept.loc[run, "provenance"]))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m reporting.stored", description=__doc__)
    commands = parser.add_subparsers(required=True)
    kept = commands.add_parser("keep", help="add finished runs to a store")
    kept.add_argument("folders", type=Path, nargs="+", help="run folders")
    kept.add_argument("--out", type=Path, required=True)
    kept.set_defaults(call=lambda a: keep(a.folders, a.out))
    restored = commands.add_parser("restore", help="write stored runs back into run folders")
    restored.add_argument("runs", nargs="+")
    restored.add_argument("--store", type=Path, required=True)
    restored.add_argument("--runs-folder", type=Path, default=Path("results/runs"))
    restored.set_defaults(call=lambda a: restore(a.runs, a.store, a.runs_folder))
    return run_command(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
