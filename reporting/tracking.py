"""Finished runs -> MLflow, so that they can be browsed and compared (`make ui`).

Training writes plain files and knows nothing of MLflow; this file is the only one that imports it, and only
inside functions. Logging is therefore a job of its own that may be repeated: a run that is logged again
replaces its former entry, and the store holds exactly one active entry per run id.

What goes where:

    run.yaml          parameters, nested keys joined by dots (`training.steps`)
    history.parquet   metrics under their own names (`reward/proxy_mean`), at their training step; where gold
                      was monitored also `reward/gap`, the proxy less gold
    scores.parquet    metrics `<role>/<suite>_<metric>`, at the step of the scored checkpoint
    provenance.json   tags, the git sha also as MLflow's own commit tag; start and duration of the entry
    images            the contact sheets, `samples/<suite>` at their step
    artifacts         run.yaml and provenance.json
"""

import argparse
import hashlib
import json
import os
import posixpath
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from filelock import FileLock
from PIL import Image

from core.command import run_command, whole_number
from core.files import replacing, write_text
from core.tables import read_table
from evaluation import images

EXPERIMENT = "goodhart"
RUN_TAG = "goodhart.run"  # the key of idempotency: its value is the run id
SHEETS, SHEETS_TAG = "samples/", "goodhart.samples"  # images of contact sheets; suite -> its last step
PROXY, GOLD, GAP = "reward/proxy_mean", "reward/gold_mean", "reward/gap"
TAGGED = ("git", "hardware", "config_hash", "wall_seconds", "device_seconds")  # of provenance.json
VALUE_LIMIT = 500  # characters of a parameter or tag; longer values are cut, run.yaml keeps them whole
NAME_LIMIT = 250  # MLflow's limit on names
METRICS_PER_BATCH, PARAMS_PER_BATCH = 1000, 100  # MLflow's limits on one request


def log_run(run_dir: Path, scores: pd.DataFrame | None, tracking_uri: str, experiment: str) -> str:
    """Log one finished run and return its MLflow run id; every earlier entry of the same run is deleted.

    `run_dir` holds run.yaml, history.parquet and provenance.json. `scores` are tidy score rows, of which
    those of this run are taken; with None the folder's own scores.parquet is read if there is one.

    The new entry is complete before the old ones go, so a reader never finds a run missing. If anything
    fails, the new entry is marked FAILED and deleted and the old one stays. An entry left RUNNING by a
    logger that was killed carries the same tag, so the next call removes it.

    Raises FileNotFoundError if the run is not finished, ValueError for an unusable uri or metric name.
    """
    run_dir = Path(run_dir)
    config = yaml.safe_load((run_dir / "run.yaml").read_text())
    provenance_file = run_dir / "provenance.json"
    provenance = flatten(json.loads(provenance_file.read_text()))
    run = config["run"]
    if scores is None and (run_dir / "scores.parquet").exists():
        scores = read_table(run_dir / "scores.parquet")
    # Times come from the run, not from the moment of logging: logging again changes nothing.
    end = round(provenance_file.stat().st_mtime * 1000)
    start = end - round(1000 * float(provenance.get("wall_seconds") or 0))
    metrics = run_metrics(run, read_table(run_dir / "history.parquet"), scores)
    params = {metric_name(key): text(value) for key, value in flatten(config).items()}
    sheets = list(images.sheets(run_dir / "images"))
    sampled = Counter(suite for _, suite, _ in sheets)  # the task's own suite at every evaluated step
    last = {suite: max(step for _, of, step in sheets if of == suite) for suite, _ in sampled.most_common()}
    tags = run_tags(run, provenance) | {SHEETS_TAG: json.dumps(last)}

    with store_lock(tracking_uri):
        client, experiment_id = open_store(tracking_uri, experiment)
        earlier = find_runs(client, experiment_id, run)
        new = client.create_run(experiment_id, start, tags, run).info.run_id
        try:
            log_values(client, new, params, metrics, end)
            for path in (run_dir / "run.yaml", provenance_file):
                client.log_artifact(new, str(path))
            for path, suite, step in sheets:
                with Image.open(path) as sheet:
                    client.log_image(
                        new, sheet, key=SHEETS + suite, step=step, timestamp=end, synchronous=True
                    )
            client.set_terminated(new, "FINISHED", end)
        except BaseException:
            client.set_terminated(new, "FAILED")
            client.delete_run(new)
            raise
        for old in earlier:
            client.delete_run(old)
    return new


def init_store(tracking_uri: str, experiment: str = EXPERIMENT) -> str:
    """Create the database and the experiment if they are missing; returns the experiment id."""
    with store_lock(tracking_uri):
        return open_store(tracking_uri, experiment)[1]


def default_uri() -> str:
    """MLFLOW_TRACKING_URI if it is set, else the database results/mlflow.db under the working directory."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path('results/mlflow.db').resolve()}"


def database(tracking_uri: str) -> Path | None:
    """Absolute path of a sqlite uri's file, None for a server or another database.

    Raises ValueError for a `file:` uri or a bare path: MLflow has retired its file store.
    """
    if "://" not in tracking_uri or tracking_uri.startswith("file:"):
        raise ValueError(
            f"tracking uri {tracking_uri!r} names a file store, which MLflow no longer supports: "
            "use sqlite:///ABSOLUTE/PATH.db or the address of a server"
        )
    if not tracking_uri.startswith("sqlite:///"):
        return None
    return Path(tracking_uri.removeprefix("sqlite:///")).resolve()


def store_name(tracking_uri: str) -> str:
    """A name for a store's folder under ``results/mlflow``: what is logged to one store is not in another."""
    return hashlib.sha256(tracking_uri.encode()).hexdigest()[:12]


def store_lock(tracking_uri: str) -> AbstractContextManager:
    """One process at a time per sqlite file.

    Processes that migrate a fresh file together lose all but one, and two loggers of the same run would
    each miss the other's entry. sqlite has a single writer anyway, so waiting costs little. A lock of a
    killed process is released by the system. Servers order their requests themselves.
    """
    path = database(tracking_uri)
    if path is None:
        return nullcontext()
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{path}.lock")


def open_store(tracking_uri: str, experiment: str) -> tuple[Any, str]:
    """MLflow client and experiment id; creates what is missing, so call it under `store_lock`."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when mlflow is imported
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    from mlflow import MlflowClient

    path = database(tracking_uri)
    if path is not None and not path.exists():
        # MLflow migrates a fresh file in dozens of steps and cannot go on where it was killed in between.
        with replacing(path) as temporary:
            MlflowClient(f"sqlite:///{temporary}").search_experiments()
    client = MlflowClient(tracking_uri if path is None else f"sqlite:///{path}")
    known = client.get_experiment_by_name(experiment)
    if known is None:
        location = None if path is None else (path.parent / "mlartifacts").as_uri()
        return client, client.create_experiment(experiment, artifact_location=location)
    if known.lifecycle_stage == "deleted":
        client.restore_experiment(known.experiment_id)
    return client, known.experiment_id


def find_runs(client: Any, experiment_id: str, run: str) -> list[str]:
    """MLflow run ids of all active entries of one run, whatever their status."""
    found = client.search_runs([experiment_id], f"tags.`{RUN_TAG}` = '{run}'", max_results=1000)
    return [entry.info.run_id for entry in found]


def log_values(client: Any, run_id: str, params: dict[str, str], metrics: pd.DataFrame, time_ms: int) -> None:
    """Write parameters and metrics (columns step, name, value) in as few requests as MLflow allows."""
    from mlflow.entities import Metric, Param

    for part in chunks([Param(*item) for item in params.items()], PARAMS_PER_BATCH):
        client.log_batch(run_id, params=part)
    points = [Metric(row.name, float(row.value), time_ms, int(row.step)) for row in metrics.itertuples(False)]
    for part in chunks(points, METRICS_PER_BATCH):
        client.log_batch(run_id, metrics=part)


def chunks(items: list, size: int) -> Iterator[list]:
    """Consecutive slices of at most `size` items."""
    return (items[i : i + size] for i in range(0, len(items), size))


def run_metrics(run: str, history: pd.DataFrame, scores: pd.DataFrame | None) -> pd.DataFrame:
    """History and scores of one run as one frame step, name, value, with names that MLflow accepts.

    Raises ValueError if two names become the same one, since their curves would be mixed silently.
    """
    frames = [history[["step", "name", "value"]], gap(history)]
    if scores is not None:
        mine = scores[scores["run"] == run]
        frames.append(
            mine.assign(name=mine["role"] + "/" + mine["suite"] + "_" + mine["metric"])[
                ["step", "name", "value"]
            ]
        )
    rows = pd.concat(frames, ignore_index=True).drop_duplicates(["step", "name"], keep="last")
    names = {name: metric_name(name) for name in rows["name"].unique()}
    if len(set(names.values())) < len(names):
        raise ValueError(f"metric names of {run} are not distinct in MLflow's alphabet: {sorted(names)}")
    return rows.assign(name=rows["name"].map(names))


def gap(history: pd.DataFrame) -> pd.DataFrame:
    """Proxy less gold at the steps that have both, as rows step, name, value."""
    proxy, gold = (history[history["name"] == name].set_index("step")["value"] for name in (PROXY, GOLD))
    difference = (proxy - gold).dropna()
    return pd.DataFrame({"step": difference.index, "name": GAP, "value": difference.to_numpy()})


def metric_name(name: str) -> str:
    """`name` in MLflow's alphabet (letters, digits, `_ - . / space`), a clean relative path, <= 250 long.

    The colon is replaced as well: not every platform's MLflow accepts it. Raises ValueError if nothing
    is left.
    """
    clean = posixpath.normpath(re.sub(r"[^/\w.\- ]", "_", name))
    clean = "/".join(part for part in clean.split("/") if part not in ("", ".", ".."))[:NAME_LIMIT].rstrip(
        "/"
    )
    if not clean:
        raise ValueError(f"{name!r} cannot be made an MLflow name")
    return clean


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Leaves of a nested dict by dotted key; lists stay whole."""
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    dot = f"{prefix}." if prefix else ""
    return {
        key: leaf for name, child in value.items() for key, leaf in flatten(child, f"{dot}{name}").items()
    }


def text(value: Any) -> str:
    """A parameter or tag value: strings as they are, everything else as JSON, at most 500 characters."""
    return (value if isinstance(value, str) else json.dumps(value, default=str))[:VALUE_LIMIT]


def run_tags(run: str, provenance: dict[str, Any]) -> dict[str, str]:
    """Tags of one entry: the run id, the commit for MLflow's own column, and what identifies the result."""
    tags = {RUN_TAG: run}
    tags |= {
        f"goodhart.{key}": text(value) for key, value in provenance.items() if key.split(".")[0] in TAGGED
    }
    if provenance.get("git.commit"):
        tags["mlflow.source.git.commit"] = provenance["git.commit"]
    return tags


def _init(arguments) -> None:
    print(init_store(arguments.tracking_uri, arguments.experiment))


def _log(arguments) -> None:
    ids = [
        log_run(run_dir, None, arguments.tracking_uri, arguments.experiment) for run_dir in arguments.run_dir
    ]
    if arguments.done:
        write_text(arguments.done, "".join(f"{run_id}\n" for run_id in ids))


def _ui(arguments) -> None:
    from reporting.tracking_page import serve  # which needs what is above

    serve(arguments.tracking_uri, arguments.experiment, arguments.port)


def main(argv: list[str] | None = None) -> int:
    """The command line described at the top of this file."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--tracking-uri", default=default_uri(), help="default: %(default)s")
    common.add_argument("--experiment", default=EXPERIMENT)
    parser = argparse.ArgumentParser(prog="python -m reporting.tracking", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    init = commands.add_parser("init", parents=[common], help="create the database and the experiment")
    log = commands.add_parser("log", parents=[common], help="log finished runs")
    log.add_argument("run_dir", nargs="+", type=Path)
    log.add_argument("--done", type=Path, metavar="FILE", help="written last: one MLflow run id per line")
    ui = commands.add_parser("ui", parents=[common], help="browse the runs on 127.0.0.1")
    ui.add_argument("--port", type=whole_number(1, 65_535), default=5000)
    for command, call in ((init, _init), (log, _log), (ui, _ui)):
        command.set_defaults(call=call)
    return run_command(parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
