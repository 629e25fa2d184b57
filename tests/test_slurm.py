"""The workflow on a real Slurm, with jobs cancelled, out of time or failing, and snakemake killed."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml
from repository_copy import ROOT, copy_repository
from slurm_cluster import Cluster, missing

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing())]

MEASURED = {"train_wall_seconds", "train_cpu_seconds", "train_device_seconds", "peak_memory_mb"}  # by clocks
SCORES = "results/scores.parquet"
ITERATIONS = 25
SMALL = {
    "seeds": [901],
    "snapshot_shares": [],
    "training": {
        "iterations": ITERATIONS,
        "prompts_per_iteration": 2,
        "group_size": 6,
        "checkpoint_every": 1,
    },
    "evaluation": {"images_per_prompt": 2},
    "tables": ["counting"],
}
BROKEN = '''"""Fails once training has begun."""

from methods.grpo import GRPO


class Broken(GRPO):
    name = "broken"

    def prepare(self, rollout):
        raise RuntimeError("broken on purpose")
'''


def run_id(method: str) -> str:
    return f"tiny-sd3__counting__{method}__s901"


def write_grid(folder: Path, name: str, methods: list[str]) -> None:
    grid = {"base": "tiny-sd3", "task": "counting", "methods": methods}
    (folder / name).write_text(yaml.safe_dump({**SMALL, "grid": [grid]}))


def write_profile(folder: Path, name: str, **training) -> None:
    """The shipped profile's copy, as docs/cluster.md says: this machine's memory, training's resources."""
    profile = yaml.safe_load((ROOT / "workflow/profiles/slurm/config.yaml").read_text())
    for resources in (profile["default-resources"], *profile["set-resources"].values()):
        resources["mem_mb"] = 1500
    profile["set-resources"]["train"] |= training
    profile["slurm-init-seconds-before-status-checks"] = 1
    target = folder / "workflow/profiles" / name
    target.mkdir()
    (target / "config.yaml").write_text(yaml.safe_dump(profile))


class Site:
    """A copy of the repository and the cluster it runs on."""

    def __init__(self, folder: Path, cluster: Cluster):
        self.folder, self.cluster, self.started = folder, cluster, []

    def __enter__(self) -> "Site":
        return self

    def __exit__(self, *_) -> None:
        for process in self.started:  # of a test that failed
            process.kill()
            process.wait()

    def start(self, grid: str, target: str = SCORES, profile="mine") -> subprocess.Popen:
        # fmt: off
        command = [
            "env", "--default-signal=INT",  # which a test run in the background would pass on as ignored
            sys.executable, "-m", "snakemake", "--profile", f"workflow/profiles/{profile}", "--retries", "1",
            "--configfile", grid, "--", target,
        ]
        # fmt: on
        with open(self.folder / "snakemake.log", "a") as log:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.cluster.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def wait_for(self, happened, what: str, process: subprocess.Popen | None = None, seconds: float = 3000):
        """The first true value of ``happened()``."""
        end = time.monotonic() + seconds
        while not (value := happened()):
            ended = process is not None and process.poll() is not None
            assert time.monotonic() < end and not ended, f"{what} never came\n{self.report()}"
            time.sleep(0.1)
        return value

    def finish(self, process: subprocess.Popen) -> int:
        """The exit status, once there is one."""
        self.wait_for(lambda: process.poll() is not None, "the end of snakemake")
        return process.returncode

    def report(self) -> str:
        logs = [self.folder / "snakemake.log", *sorted(self.folder.glob("logs/*/*.log"))]
        return "\n".join(f"{p}:\n{p.read_text()[-1000:]}" for p in logs)

    def jobs(self, rule: str, method: str = "") -> list[tuple[int, str, str]]:
        """Id, state and time limit of every submission of a rule, the first one first."""
        listed = self.cluster.output("squeue", "--noheader", "--states=all", "--format=%i|%T|%l|%k")
        found = [line.split("|") for line in listed.splitlines()]
        wanted = [row for row in found if rule in row[3] and (not method or run_id(method) in row[3])]
        return sorted((int(number), state, limit) for number, state, limit, _ in wanted)

    def running(self, rule: str, method: str) -> str | None:
        return next((str(number) for number, state, _ in self.jobs(rule, method) if state == "RUNNING"), None)

    def freeze(self, method: str) -> None:
        """Stop a training, so that it cannot end before the test has dealt with its job.

        By itself: a job stopped and then cancelled by Slurm may stay in the state STOPPED for good.
        """
        command = "\0".join(["", "training", "run", f"results/runs/{run_id(method)}", ""]).encode()
        for process in self.cluster.processes():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # of those that have ended
                if command in Path(f"/proc/{process}/cmdline").read_bytes():
                    os.kill(process, signal.SIGSTOP)

    def checkpoint(self, method: str) -> int:
        """The newest checkpoint's iteration; 0 without one."""
        found = (self.folder / "results/runs" / run_id(method) / "checkpoint").glob("iteration_*")
        return max((int(path.name.removeprefix("iteration_")) for path in found), default=0)

    def first_iteration(self, method: str) -> int:
        """The iteration at which the newest attempt of a training began, by its progress bar."""
        log = (self.folder / "logs/train" / f"{run_id(method)}.log").read_text()
        return int(re.search(rf"{run_id(method)}:.*? (\d+)/{ITERATIONS} ", log)[1])


@pytest.fixture(scope="module")
def cluster():
    with Cluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def site(tmp_path_factory, cluster):
    folder = copy_repository(tmp_path_factory.mktemp("site"))
    (folder / "methods/broken.py").write_text(BROKEN)
    (folder / "config/methods/broken.yaml").write_text("label: broken\nalgorithm: broken\nsource: ours\n")
    write_profile(folder, "mine")
    write_grid(folder, "interrupted.yaml", ["grpo", "gardo"])
    write_grid(folder, "first.yaml", ["grpo", "gardo", "broken"])
    write_grid(folder, "second.yaml", ["grpo", "gardo", "base"])
    with Site(folder, cluster) as site:
        yield site


@pytest.fixture(scope="module")
def interrupted(site):
    """Ctrl-C while a training runs that has a checkpoint."""
    process = site.start("interrupted.yaml")
    site.wait_for(lambda: site.checkpoint("grpo") or site.checkpoint("gardo"), "a checkpoint", process)
    for method in ("grpo", "gardo"):
        site.freeze(method)  # Snakemake cancels late on a busy machine; iterations must be left
    process.send_signal(signal.SIGINT)
    site.finish(process)
    site.wait_for(lambda: not site.cluster.jobs(), "an empty queue", seconds=30)
    return site


@pytest.fixture(scope="module")
def disturbed(interrupted):
    """The same grid again: one training is cancelled, one runs out of time, one fails by itself."""
    site, process = interrupted, interrupted.start("first.yaml")
    before = {method: site.checkpoint(method) for method in ("grpo", "gardo")}
    site.seen = {}

    def advanced() -> tuple[str, str] | None:
        """A method whose training has written a checkpoint since the start, and its job."""
        for method in before.keys() - site.seen.keys():
            if site.checkpoint(method) > before[method] and (number := site.running("rule_train", method)):
                return method, number

    while len(site.seen) < 2:
        method, number = site.wait_for(advanced, "a checkpoint", process)
        site.freeze(method)
        if method == "grpo":
            site.cluster.output("scancel", number)
        else:  # limits are checked twice a minute
            site.cluster.output("scontrol", "update", f"JobId={number}", "EndTime=now")
        site.seen[method] = site.checkpoint(method)
    site.status = site.finish(process)
    return site


@pytest.fixture(scope="module")
def finished(disturbed):
    """A grid with one more row, whose snakemake is killed and which is then started again."""
    site = disturbed
    files = [path for path in site.folder.glob("results/runs/*/*") if path.is_file()]
    site.kept = {path: path.stat().st_mtime_ns for path in files}
    killed = site.start("second.yaml")
    site.wait_for(lambda: site.running("rule_train", "base"), "the base model's job", killed)
    killed.kill()
    killed.wait()
    site.cluster.drain()
    unlock = [sys.executable, "-m", "snakemake", "--unlock", "--configfile", "second.yaml"]
    subprocess.run(unlock, cwd=site.folder, check=True, capture_output=True)
    assert site.finish(site.start("second.yaml")) == 0, site.report()
    return site


def test_ctrl_c_leaves_no_job_behind(interrupted):
    states = [state for _, state, _ in interrupted.jobs("rule_train")]
    assert set(states) == {"CANCELLED"}
    assert not list(interrupted.folder.glob(".snakemake/locks/*"))


def test_a_cancelled_training_goes_on_from_its_checkpoint(disturbed):
    (_, first, limit), (_, second, longer) = disturbed.jobs("rule_train", "grpo")[-2:]
    assert (first, second) == ("CANCELLED", "COMPLETED"), disturbed.report()
    assert (limit, longer) == ("8:00:00", "16:00:00")
    assert ITERATIONS > disturbed.first_iteration("grpo") >= disturbed.seen["grpo"] > 0


def test_a_training_out_of_time_goes_on_from_its_checkpoint(disturbed):
    (_, first, _), (_, second, _) = disturbed.jobs("rule_train", "gardo")[-2:]
    assert (first, second) == ("TIMEOUT", "COMPLETED"), disturbed.report()
    assert ITERATIONS > disturbed.first_iteration("gardo") >= disturbed.seen["gardo"] > 0


def test_a_failing_training_fails_alone(disturbed):
    states = [state for _, state, _ in disturbed.jobs("rule_train", "broken")]
    assert states == ["FAILED"] * 2  # the profile's retries are cut to one here
    assert disturbed.status != 0
    kept = [p.read_text() for p in disturbed.folder.glob(f"logs/train/attempts/{run_id('broken')}.*.log")]
    assert len(kept) == 2 and all("Slurm job" in log and "broken on purpose" in log for log in kept)
    runs = disturbed.folder / "results/runs"
    assert sorted(p.parent.name for p in runs.glob("*/scores.parquet")) == [run_id("gardo"), run_id("grpo")]


def test_sampling_and_scoring_are_one_submission_and_gpus_are_asked_for(disturbed):
    states = [state for _, state, _ in disturbed.jobs("rule_evaluate")]
    assert states == ["COMPLETED"] * 2
    for number, _, _ in disturbed.jobs("rule_train") + disturbed.jobs("rule_evaluate"):
        job = disturbed.cluster.output("scontrol", "show", "job", str(number)).split()
        assert "TresPerJob=gres:gpu:1" in job and "Partition=gpu" in job
        assert "Requeue=0" in job  # or Slurm and snakemake could both start it again


def test_a_second_start_after_a_kill_repeats_no_finished_work(finished):
    assert finished.kept
    assert {path: path.stat().st_mtime_ns for path in finished.kept} == finished.kept
    assert [state for _, state, _ in finished.jobs("rule_train", "base")] == ["CANCELLED", "COMPLETED"]


def test_the_scores_are_those_of_a_local_run(finished, tmp_path):
    folder = copy_repository(tmp_path / "local")
    write_grid(folder, "second.yaml", ["grpo", "gardo", "base"])
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "--configfile",
        "second.yaml",
        "--",
        "results/scores.parquet",
    ]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    local, remote = (pd.read_parquet(f / SCORES) for f in (folder, finished.folder))
    measured = local["metric"].isin(MEASURED)
    pd.testing.assert_frame_equal(local[~measured], remote[~measured], check_exact=True)
    for method in ("grpo", "gardo"):
        name = f"results/runs/{run_id(method)}/adapter/pytorch_lora_weights.safetensors"
        assert (folder / name).read_bytes() == (finished.folder / name).read_bytes()


def provenance(folder: Path) -> dict:
    return json.loads((folder / f"results/runs/{run_id('grpo')}/provenance.json").read_text())


@pytest.mark.parametrize("nodes", [1, 2])
def test_two_processes_of_one_job_train_together(nodes, tmp_path):
    """On one node through accelerate, on two through srun as well; two GPUs of each are asked for."""
    site_folder = copy_repository(tmp_path / "site")
    write_grid(site_folder, "one.yaml", ["grpo"])
    if nodes == 1:
        asked = {"gpu": 2, "cpus_per_task": 2}
    else:  # as docs/cluster.md says
        asked = {"nodes": 2, "gpu": 4, "slurm_extra": "'--gpus-per-node=2'"}
        asked |= {"mpi": "srun", "tasks": 2, "tasks_per_gpu": 0}
    write_profile(site_folder, "many", processes=2, **asked)
    target = f"results/runs/{run_id('grpo')}/provenance.json"
    with Cluster(nodes) as cluster, Site(site_folder, cluster) as site:
        assert site.finish(site.start("one.yaml", target, profile="many")) == 0, site.report()
        (number, state, _) = site.jobs("rule_train")[-1]
        job = cluster.output("scontrol", "show", "job", str(number)).split()
    assert state == "COMPLETED" and f"NumNodes={nodes}" in job and f"TresPerJob=gres:gpu:{2 * nodes}" in job
    assert provenance(site_folder)["processes"] == 2
