"""What a run costs besides its work: start-up of a job, Snakemake per job, whole grids."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measuring import median_seconds, seconds
from benchmarks.setting import BASE, TASK
from core.command import JOB_ENVIRONMENT
from core.files import to_yaml
from runs.resolve import resolve_run
from workflow import fork_server

ROOT = Path(__file__).parent.parent
EMPTY_RULES = """
rule all:
    input: expand("job_{{i}}", i=range({jobs}))

rule job:
    output: touch("job_{{i}}")
    shell: "true"
"""


def start_up(repeats: int, *module: str) -> float:
    """Seconds of training on a run that generates and trains one image, by ``python -m module``."""
    smallest = {"iterations": 1, "prompts_per_iteration": 1, "group_size": 1}
    run = resolve_run(BASE, TASK, "grpo", 1, {"training": smallest})
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "run.yaml").write_text(to_yaml(run.model_dump()))
        command = [sys.executable, "-m", *module, "run", folder]
        return median_seconds(
            lambda: subprocess.run(command, cwd=ROOT, check=True, capture_output=True), repeats
        )


def start_up_in_workflow(repeats: int) -> float:
    """The same where a fork server has imported the libraries, as the workflow has one for its own machine.

    Raises:
        RuntimeError: this system cannot have one, or is told to have none.
    """
    server = fork_server.start(JOB_ENVIRONMENT)
    if server is None:
        raise RuntimeError(f"no fork server: it takes Linux 5.3 or later and no {fork_server.FOLDER}")
    try:
        with server:
            return start_up(repeats, "workflow.job", "training")
    finally:
        del os.environ[fork_server.FOLDER]


def _empty_workflow(jobs: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "Snakefile").write_text(EMPTY_RULES.format(jobs=jobs))
        command = [sys.executable, "-m", "snakemake", "--cores", "1"]
        return seconds(lambda: subprocess.run(command, cwd=folder, check=True, capture_output=True))


def per_job(repeats: int, few: int = 5, many: int = 45) -> float:
    """Snakemake's own seconds per job: workflows of empty jobs, the start of Snakemake subtracted."""
    taken = [(_empty_workflow(many) - _empty_workflow(few)) / (many - few) for _ in range(repeats)]
    return statistics.median(taken)


def grid(configfile: str, cores: int) -> dict[str, float]:
    """Seconds of ``snakemake results/tables`` in a fresh clone, peak memory of its largest process and the
    processor seconds of all."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        command = [sys.executable, "-m", "snakemake", "--cores", str(cores), "results/tables"]
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        started = time.perf_counter()
        process = subprocess.Popen(
            [*command, "--configfile", configfile], cwd=clone, env={**os.environ, "PATH": path}
        )
        _, status, used = os.wait4(process.pid, 0)
        taken = time.perf_counter() - started
    if status:
        raise RuntimeError(f"the grid of {configfile} failed")
    return {
        "seconds": taken,
        "cores": cores,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "peak_memory_mb": used.ru_maxrss / 1024,
    }
