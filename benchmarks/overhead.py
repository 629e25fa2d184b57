"""What a run costs besides its work: start-up of a job, Snakemake per job, whole grids."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measuring import median_seconds, seconds
from benchmarks.setting import BASE, TASK
from training.files import to_yaml
from training.resolve import resolve_run

ROOT = Path(__file__).parent.parent
EMPTY_RULES = """
rule all:
    input: expand("job_{{i}}", i=range({jobs}))

rule job:
    output: touch("job_{{i}}")
    shell: "true"
"""


def start_up(repeats: int) -> float:
    """Seconds of ``python -m training run`` on a run that generates and trains one image."""
    smallest = {"iterations": 1, "prompts_per_iteration": 1, "group_size": 1}
    run = resolve_run(BASE, TASK, "grpo", 1, {"training": smallest})
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "run.yaml").write_text(to_yaml(run.model_dump()))
        command = [sys.executable, "-m", "training", "run", folder]
        return median_seconds(
            lambda: subprocess.run(command, cwd=ROOT, check=True, capture_output=True), repeats
        )


def _empty_workflow(jobs: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "Snakefile").write_text(EMPTY_RULES.format(jobs=jobs))
        command = [sys.executable, "-m", "snakemake", "--cores", "1"]
        return seconds(lambda: subprocess.run(command, cwd=folder, check=True, capture_output=True))


def per_job(few: int = 5, many: int = 45) -> float:
    """Snakemake's own seconds per job: workflows of empty jobs, the start of Snakemake subtracted."""
    return (_empty_workflow(many) - _empty_workflow(few)) / (many - few)


def grid(configfile: str, cores: int) -> dict[str, float]:
    """Seconds and peak memory of the largest process of ``snakemake results/tables`` in a fresh clone."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        command = [sys.executable, "-m", "snakemake", "--cores", str(cores), "results/tables"]
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        taken = seconds(
            lambda: subprocess.run(
                [*command, "--configfile", configfile],
                cwd=clone,
                check=True,
                env={**os.environ, "PATH": path},
            )
        )
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {"seconds": taken, "cores": cores, "peak_memory_mb": memory}
