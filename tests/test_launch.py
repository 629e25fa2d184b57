"""The processes that training is started on: from a job's resources to a command, and into a real one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from workflow import launch as launching
from workflow.launch import Launch

ROOT = Path(__file__).parent.parent
ON_NODE = {"SLURM_PROCID": "1", "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.5"}


def option(command: list[str], name: str) -> str:
    return command[command.index(name) + 1]


@pytest.mark.parametrize(
    "flags, threads", [([], "1"), (["--gpus=1", "--threads=4"], "4"), (["--processes=1"], "1")]
)
def test_one_process_is_training_itself(flags, threads, monkeypatch):
    became = []

    def become(module, arguments):
        became.extend([module, *arguments])
        raise SystemExit  # it does not return

    monkeypatch.setattr(launching, "become", become)
    monkeypatch.setattr(sys, "argv", ["launch", *flags, "--", "run", "folder"])
    with pytest.raises(SystemExit):
        launching.main()
    assert became == ["training", "run", "folder", "--threads", threads]


def test_the_log_of_an_attempt_outlives_the_next_one(tmp_path):
    log = tmp_path / "logs/train/run.log"
    log.parent.mkdir(parents=True)
    for attempt in ("first", "second"):
        log.unlink(missing_ok=True)  # as snakemake does
        code = f"from workflow.job import announce; import sys; announce(); sys.exit('failed: {attempt}')"
        with log.open("a") as stream:
            environment = {**os.environ, "PYTHONPATH": str(ROOT), "SLURM_JOB_ID": "12"}
            subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, stderr=stream)
    kept = [path.read_text() for path in sorted((log.parent / "attempts").iterdir())]
    assert ["first" in kept[0], "second" in kept[1], len(kept)] == [True, True, 2]
    assert all(text.startswith("--- 20") and "Slurm job 12" in text for text in kept)


@pytest.mark.parametrize("launch", [Launch(gpus=2, threads=8), Launch(processes=2, threads=8)])
def test_several_processes_share_the_threads_of_their_node(launch):
    command = launch.command(["run", "folder"])
    assert option(command, "--num_processes") == "2" and option(command, "--num_machines") == "1"
    assert option(command, "--num_cpu_threads_per_process") == option(command, "--threads") == "4"
    assert command[-6:-2] == ["-m", "training", "run", "folder"]


def test_several_nodes_are_one_srun_and_one_accelerate_each():
    launch = Launch(gpus=8, nodes=2, threads=16)
    outer = launch.command(["run", "folder"])
    assert outer[0] == "srun" and option(outer, "--ntasks") == option(outer, "--nodes") == "2"
    inner = launch.command_of_node(["run", "folder"], 4321, ON_NODE)
    assert option(inner, "--num_processes") == "8" and option(inner, "--num_machines") == "2"
    assert option(inner, "--machine_rank") == "1" and option(inner, "--main_process_ip") == "10.0.0.5"
    assert option(inner, "--main_process_port") == "4321" and option(inner, "--threads") == "4"


@pytest.mark.parametrize(
    "wrong", [dict(processes=3, nodes=2), dict(gpus=2, processes=4), dict(gpus=3, nodes=2)]
)
def test_processes_that_cannot_be_placed_stop_at_once(wrong):
    with pytest.raises(ValueError, match="processes"):
        Launch(**wrong)
    flags = [f"--{name}={value}" for name, value in wrong.items()]
    command = [sys.executable, "-m", "workflow.launch", *flags, "--", "run", "folder"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("error: ")
