"""Logging to MLflow: one active entry per run whatever happens, complete metrics, safe in parallel."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml
from PIL import Image

from evaluation import images
from reporting import tracking

ROOT = Path(__file__).resolve().parents[1]
STEPS = 600  # with two metrics per step more than one batch of 1000
SCORES = {"proxy": "count", "gold": "count_exact", "unseen": "aesthetic", "diversity": "pairwise"}


def make_run(folder: Path, run: str, steps: int = STEPS, **training) -> Path:
    """Write the files of a finished run and return its folder."""
    base, task, method, seed = run.split("__")
    number = int(seed.removeprefix("s"))
    config = {"run": run, "base": base, "task": task, "method": method, "seed": number, "hash": "c0ffee"}
    config["training"] = {"steps": steps, "prompts": ["a"] * 400, **training}
    path = folder / run
    path.mkdir(parents=True)
    (path / "run.yaml").write_text(yaml.safe_dump(config))
    history = [
        (step, name, step / steps + number / 100)
        for step in range(steps)
        for name in ("reward/proxy_mean", "train/loss@clip")
    ]
    history += [(step, "reward/gold_mean", 0.25) for step in range(0, steps, 5)]
    pd.DataFrame(history, columns=["step", "name", "value"]).to_parquet(path / "history.parquet")
    provenance = {
        "git": {"commit": "0123456789abcdef0123456789abcdef01234567", "dirty": False},
        "config_hash": "c0ffee",
        "hardware": {"processor": "test", "accelerator": "none"},
        "packages": {"torch": "2.13.0"},
        "wall_seconds": 12.5,
    }
    (path / "provenance.json").write_text(json.dumps(provenance))
    rows = [
        {"suite": "test", "metric": metric, "role": role, "value": round(0.9 - i / 10 + number / 100, 3)}
        for i, (role, metric) in enumerate(SCORES.items())
    ]
    cell = {"run": run, "base": base, "task": task, "method": method, "seed": number, "step": steps}
    pd.DataFrame([cell | row | {"n_images": 64} for row in rows]).to_parquet(path / "scores.parquet")
    (path / "images").mkdir()
    for step in (steps // 2, steps):
        Image.new("RGB", (40, 30), (step % 256, 0, 0)).save(images.sheet_of(path / "images", "test", step))
    return path


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    """One database for the module: creating it takes seconds."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('store')}/results/mlflow.db"
    tracking.init_store(uri)
    return uri


@pytest.fixture
def client(uri):
    from mlflow import MlflowClient

    return MlflowClient(uri)


def log(path, uri, scores=None):
    return tracking.log_run(path, scores, uri, tracking.EXPERIMENT)


def entries(client, run, deleted=False):
    from mlflow.entities import ViewType

    experiment = client.get_experiment_by_name(tracking.EXPERIMENT).experiment_id
    view = ViewType.DELETED_ONLY if deleted else ViewType.ACTIVE_ONLY
    return client.search_runs([experiment], f"tags.`goodhart.run` = '{run}'", run_view_type=view)


def test_a_run_arrives_whole(tmp_path, uri, client):
    path = make_run(tmp_path, "sd3__counting__gardo__s1")
    log(path, uri)
    (entry,) = entries(client, path.name)
    assert entry.info.run_name == path.name and entry.info.status == "FINISHED"
    assert entry.info.end_time - entry.info.start_time == 12_500
    assert entry.data.params["training.steps"] == str(STEPS) and entry.data.params["hash"] == "c0ffee"
    assert len(entry.data.params["training.prompts"]) == 500
    assert entry.data.tags["mlflow.source.git.commit"].startswith("0123456789")
    assert entry.data.tags["goodhart.git.dirty"] == "false"
    assert entry.data.tags["goodhart.hardware.processor"] == "test"
    assert entry.data.metrics["gold/test_count_exact"] == 0.81
    assert entry.data.metrics["proxy/test_count"] == 0.91
    for name in ("reward/proxy_mean", "train/loss_clip"):
        history = client.get_metric_history(entry.info.run_id, name)
        assert sorted(point.step for point in history) == list(range(STEPS))
    assert client.get_metric_history(entry.info.run_id, "gold/test_count_exact")[0].step == STEPS
    gap = client.get_metric_history(entry.info.run_id, "reward/gap")
    assert {(p.step, round(p.value, 6)) for p in gap} == {
        (step, round(step / STEPS + 0.01 - 0.25, 6)) for step in range(0, STEPS, 5)
    }
    names = {file.path for file in client.list_artifacts(entry.info.run_id)}
    assert names == {"run.yaml", "provenance.json", "images"}
    sheets = [file.path for file in client.list_artifacts(entry.info.run_id, "images")]
    for step in (STEPS // 2, STEPS):
        assert len([p for p in sheets if p.startswith(f"images/samples~test+step+{step}+")]) == 2  # and small
    assert Path(entry.info.artifact_uri.removeprefix("file://")).is_relative_to(
        tracking.database(uri).parent / "mlartifacts"
    )


def test_logging_again_replaces_the_entry(tmp_path, uri, client):
    first = make_run(tmp_path / "first", "sd3__counting__grpo__s0", lr=0.1)
    second = make_run(tmp_path / "second", "sd3__counting__grpo__s0", lr=0.2)
    ids = [log(path, uri) for path in (first, first, second)]
    (entry,) = entries(client, first.name)
    assert entry.info.run_id == ids[-1] and len(set(ids)) == 3
    assert entry.data.params["training.lr"] == "0.2"
    assert len(client.get_metric_history(ids[-1], "reward/proxy_mean")) == STEPS


def test_what_a_killed_logger_left_is_removed(tmp_path, uri, client):
    path = make_run(tmp_path, "sd3__counting__grpo__s1", steps=2)
    experiment = client.get_experiment_by_name(tracking.EXPERIMENT).experiment_id
    for _ in range(2):
        client.create_run(experiment, tags={tracking.RUN_TAG: path.name}, run_name=path.name)
    assert {entry.info.status for entry in entries(client, path.name)} == {"RUNNING"}
    new = log(path, uri)
    assert [entry.info.run_id for entry in entries(client, path.name)] == [new]


def test_a_failure_keeps_the_earlier_entry(tmp_path, uri, client, monkeypatch):
    path = make_run(tmp_path, "sd3__counting__grpo__s2", steps=2)
    good = log(path, uri)

    def full_disk(*_):
        raise OSError("no space left")

    monkeypatch.setattr("mlflow.MlflowClient.log_artifact", full_disk)
    with pytest.raises(OSError, match="no space left"):
        log(path, uri)
    assert [entry.info.run_id for entry in entries(client, path.name)] == [good]
    assert [entry.info.status for entry in entries(client, path.name, deleted=True)] == ["FAILED"]


def test_given_scores_are_filtered_by_run(tmp_path, uri, client):
    paths = [make_run(tmp_path, f"sd3__counting__kl__s{seed}", steps=2) for seed in range(2)]
    table = pd.concat([pd.read_parquet(path / "scores.parquet") for path in paths])
    log(paths[1], uri, table)
    (entry,) = entries(client, paths[1].name)
    assert entry.data.metrics["proxy/test_count"] == 0.91


def test_eight_processes_on_a_fresh_database(tmp_path):
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path}/fresh/mlflow.db"
    runs = [make_run(tmp_path, f"sd3__counting__gardo__s{seed}", steps=50) for seed in range(8)]
    command = [sys.executable, "-m", "reporting.tracking", "log", "--tracking-uri", uri]
    jobs = [
        subprocess.Popen(
            [*command, str(path), "--done", f"{path}.done"],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for path in runs
    ]
    errors = [job.communicate(timeout=120)[1] for job in jobs]
    assert [job.returncode for job in jobs] == [0] * 8, "\n".join(errors)
    client = MlflowClient(uri)
    for path in runs:
        (entry,) = entries(client, path.name)
        assert Path(f"{path}.done").read_text() == f"{entry.info.run_id}\n"
        assert len(client.get_metric_history(entry.info.run_id, "reward/proxy_mean")) == 50
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize("uri", ["file:///tmp/mlruns", "file:mlruns", "mlruns", "/tmp/mlruns"])
def test_file_stores_are_refused(tmp_path, uri):
    with pytest.raises(ValueError, match="sqlite:///"):
        log(make_run(tmp_path, "sd3__counting__grpo__s0", steps=2), uri)
    with pytest.raises(ValueError, match="sqlite:///"):
        tracking.init_store(uri)


def test_an_unfinished_run_is_refused(tmp_path, uri, client):
    path = make_run(tmp_path, "sd3__counting__unfinished__s0", steps=2)
    (path / "provenance.json").unlink()
    with pytest.raises(FileNotFoundError):
        log(path, uri)
    assert entries(client, path.name) == []


def test_the_default_store_is_in_results(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking.default_uri() == f"sqlite:///{Path.cwd()}/results/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert tracking.default_uri() == "http://127.0.0.1:1"


@pytest.mark.parametrize(
    "name, expected",
    [
        ("reward/proxy_mean", "reward/proxy_mean"),
        ("gold/acc@0.5 (%)", "gold/acc_0.5 ___"),
        ("kl:ref", "kl_ref"),
        ("a//b/../c/./d", "a/c/d"),
        ("/abs", "abs"),
        ("../up", "up"),
        ("x" * 300, "x" * 250),
    ],
)
def test_metric_names(name, expected):
    from mlflow.utils.validation import _validate_metric_name

    assert tracking.metric_name(name) == expected
    _validate_metric_name(expected)


def test_names_that_would_merge_or_vanish_are_refused():
    history = pd.DataFrame({"step": [0, 0], "name": ["loss@a", "loss:a"], "value": [1.0, 2.0]})
    with pytest.raises(ValueError, match="not distinct"):
        tracking.run_metrics("run", history, None)
    with pytest.raises(ValueError, match="cannot be made"):
        tracking.metric_name("../..")


def test_a_database_is_whole_or_not_there(tmp_path):
    """MLflow cannot go on with a file that it has migrated in part, so a kill must not leave one."""
    database = tmp_path / "mlflow.db"
    command = [sys.executable, "-m", "reporting.tracking", "init"]
    environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{database}"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment)
    while not any(path.stat().st_size for path in tmp_path.glob(".mlflow.db.*.tmp")):
        assert process.poll() is None, "the database was made in one moment: nothing is tested"
        time.sleep(0.002)
    process.kill()
    process.wait()
    assert not database.exists()
    assert subprocess.run(command, cwd=ROOT, env=environment).returncode == 0
    assert tracking.open_store(f"sqlite:///{database}", tracking.EXPERIMENT)[1] == "1"
