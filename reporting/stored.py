"""``python -m reporting.stored``: finished runs without their adapters and images, in a few small tables.

    python -m reporting.stored keep results/runs/* --out docs/results/raw
    python -m reporting.stored restore RUN ... --store docs/results/raw
    python -m reporting.stored compare docs/results/raw docs/reproduction

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
from evaluation.scores import KL, RUN, last_step, load
from reporting.table_formats import Text, pipe_table
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


def compare(first: Path, second: Path, metrics: Iterable[str] = ()) -> pd.DataFrame:
    """The last scores of the runs that both stores hold with the same settings, on the tasks' own suites.

    Columns run, metric, first, second, difference, and where each was trained: made_first, made_second.
    ``metrics``: which ones; default all.

    Raises:
        ConfigError: the stores have no such run in common.
    """
    kept = [read_table(Path(store) / RUNS).set_index("run") for store in (first, second)]
    runs = [run for run in kept[1].index if kept[0]["hash"].get(run) == kept[1].loc[run, "hash"]]
    if not runs:
        raise ConfigError(f"{first} and {second} hold no run of the same name and settings")
    values = [_last_own_scores(Path(store), runs, metrics) for store in (first, second)]
    table = pd.concat(values, axis=1, keys=["first", "second"]).dropna().reset_index()
    table["difference"] = table["second"] - table["first"]
    for name, of in zip(("made_first", "made_second"), kept, strict=True):
        table[name] = table["run"].map(of["provenance"].map(_made_on))
    return table


def _last_own_scores(store: Path, runs: list[str], metrics: Iterable[str]) -> pd.Series:
    from runs.config_files import load_task  # which knows rewards; nothing else here does

    rows = read_table(store / "scores.parquet", columns=["run", "task"])
    own_suites = {task: load_task(task).suites[0] for task in set(rows["task"][rows["run"].isin(runs)])}
    rows = last_step(load(store / "scores.parquet", own_suites=own_suites).table)
    rows = rows[rows["run"].isin(runs) & (rows["own"] | (rows["metric"] == KL))]
    rows = rows[rows["metric"].isin(list(metrics))] if metrics else rows
    return rows.set_index(["run", "metric"])["value"]


def _made_on(provenance: str) -> str:
    record = json.loads(provenance)
    processor, torch = record.get("hardware", {}).get("processor"), record.get("packages", {}).get("torch")
    commit = (record.get("git", {}).get("commit") or "?")[:9]
    return f"{processor or '?'}, {record.get('precision', 'float32')}, torch {torch or '?'}, code {commit}"


def _print_comparison(arguments) -> None:
    table = compare(arguments.first, arguments.second, arguments.metrics)
    for run, rows in table.groupby("run", sort=False):
        made = rows.iloc[0]
        print(f"\n**{run}**: {made['made_first']}; {made['made_second']}\n")
        lines = [["metric", "first", "second", "difference"]]
        lines += [
            [row.metric, f"{row.first:.3f}", f"{row.second:.3f}", f"{row.difference:+.3f}"]
            for row in rows.itertuples()
        ]
        print("\n".join(pipe_table([[Text(cell) for cell in line] for line in lines])))


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
    compared = commands.add_parser("compare", help="scores of the runs that two stores have in common")
    compared.add_argument("first", type=Path)
    compared.add_argument("second", type=Path)
    compared.add_argument("--metrics", nargs="*", default=[], help="default: all")
    compared.set_defaults(call=_print_comparison)
    return run_command(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
