"""A grid whose processes are killed again and again, at any moment, ends as one that nobody disturbed.

``SOAK=30 python -m pytest tests/test_soak.py`` kills thirty times; the suite a few times.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from core.tables import read_table
from tests.repository_copy import copy_repository

KILLS = int(os.environ.get("SOAK", "3"))
FIRST, LAST = 2.0, 22.0  # seconds after a start in which it is killed; a whole grid takes about 35
CONFIG = """
seeds: [901]
snapshot_shares: [0.5]
data_per_prompt: 1
training: {iterations: 8, prompts_per_iteration: 2, group_size: 6, checkpoint_every: 1, monitor_every: 1}
evaluation: {images_per_prompt: 2}
gaussian_mixture: false
tables: [main]
grid:
  - {base: tiny-sd3, task: ocr, methods: [base, gardo, ddrl_synthetic]}
"""
TARGETS = ["results/tables", "mlflow"]
LOGGED = "t.key = 'goodhart.run' and r.lifecycle_stage = 'active'"
MEASURED = ("time", "seconds", "memory", "cost")  # of the machine, in scores and MLflow


def start(folder: Path, *flags: str) -> subprocess.Popen:
    log = open(folder / "snakemake.log", "a")  # noqa: SIM115
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "--cores",
        "2",
        *flags,
        *TARGETS,
        "--configfile",
        "soak.yaml",
    ]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("GOODHART", "MLFLOW"))}
    return subprocess.Popen(
        command, cwd=folder, stdout=log, stderr=log, start_new_session=True, env=environment
    )


def processes_in(folder: Path) -> list[int]:
    """Processes whose working directory is the folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if Path(os.readlink(entry / "cwd")).is_relative_to(folder):
                    found.append(int(entry.name))
            except OSError:  # ended meanwhile, or another user's
                continue
    return found


def wait_until_quiet(folder: Path) -> None:
    end = time.monotonic() + 60
    while processes_in(folder):
        assert time.monotonic() < end, (
            f"still running a minute after the workflow's end: {processes_in(folder)}"
        )
        time.sleep(0.2)


def grid(folder: Path) -> Path:
    copy_repository(folder)
    (folder / "soak.yaml").write_text(CONFIG)
    return folder


def finish(folder: Path) -> None:
    process = start(folder)
    assert process.wait(900) == 0, (folder / "snakemake.log").read_text()[-4000:]


def files(folder: Path) -> dict[str, bytes | list]:
    """What a grid has made, without times and memory."""
    results, found = folder / "results", {}
    for pattern in ("runs/*/adapter/*.safetensors", "runs/*/history.parquet", "runs/*/images/*", "data/*"):
        found |= {str(path.relative_to(results)): path.read_bytes() for path in results.glob(pattern)}
    for path in sorted(results.glob("**/*scores.parquet")):
        table = read_table(path)
        measured = table["metric"].astype(str).str.contains("|".join(MEASURED))
        found[str(path.relative_to(results))] = table[~measured].astype(str).to_numpy().tolist()
    found["tables/main.md"] = (results / "tables" / "main.md").read_bytes()
    with sqlite3.connect(results / "mlflow.db") as database:
        names = f"select value, count(*) from tags t join runs r using (run_uuid) where {LOGGED} group by 1"
        found["mlflow runs"] = database.execute(names).fetchall()
        metrics = f"""select t.value, m.key, m.step, m.value from metrics m join tags t using (run_uuid)
                      join runs r using (run_uuid) where {LOGGED} order by 1, 2, 3"""
        rows = pd.DataFrame(database.execute(metrics).fetchall(), columns=["run", "key", "step", "value"])
        found["mlflow"] = rows[~rows["key"].str.contains("|".join(MEASURED))].to_numpy().tolist()
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = grid(tmp_path_factory.mktemp("undisturbed"))
    finish(folder)
    found = files(folder)
    assert len(found["mlflow runs"]) == 3 and len(found["mlflow"]) > 100
    assert sum(name.startswith("runs/") for name in found) > 3 * 5
    return found


@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="looks for processes in /proc")
def test_kills_at_any_moment_change_nothing(undisturbed, tmp_path):
    folder, moments = grid(tmp_path), random.Random(0)
    for kill in range(KILLS):
        process = start(folder)
        time.sleep(moments.uniform(FIRST, LAST))
        if kill % 2:
            process.kill()  # snakemake alone: what it has started ends with it
        else:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        wait_until_quiet(folder)
        assert start(folder, "--unlock").wait(120) == 0
    finish(folder)
    found = files(folder)
    assert found.keys() == undisturbed.keys()
    assert [name for name in found if found[name] != undisturbed[name]] == []
    left = [path for path in (folder / "results").rglob(".*.tmp")]
    assert not left
