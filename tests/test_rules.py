"""What surrounds the rules: style, the default profile, the profile for clusters, the picture in the docs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from repository_copy import ROOT, copy_repository

from workflow.rule_graph import BLOCK, PAGE, rule_graph

RULES = set(
    re.findall(r"^rule (\w+):", "".join(p.read_text() for p in ROOT.glob("workflow/rules/*.smk")), re.M)
)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    return copy_repository(tmp_path_factory.mktemp("goodhart"))


def snakemake(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "snakemake", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_the_rules_are_clean_and_the_default_profile_is_read(copy):
    done = snakemake(copy, "--lint")
    assert done.returncode == 0, done.stderr
    assert "workflow specific profile profiles/default" in done.stderr


def test_the_picture_shows_the_rules(copy, monkeypatch):
    monkeypatch.chdir(copy)
    assert BLOCK.search((ROOT / PAGE).read_text())[0] == rule_graph(), "draw it again: make dag"


def test_mlflow_is_written_by_the_machine_that_runs_snakemake():
    block = re.search(r"^localrules:\n((?: .*\n)+)", (ROOT / "workflow/Snakefile").read_text(), re.M)[1]
    named = set(re.findall(r"\w+", block))
    logging = set(re.findall(r"^rule (\w+):", (ROOT / "workflow/rules/track.smk").read_text(), re.M))
    assert logging and logging <= named <= RULES | {"all"}


def test_the_cluster_profile_names_rules_and_what_reaches_sbatch():
    profile = yaml.safe_load((ROOT / "workflow/profiles/slurm/config.yaml").read_text())
    assert set(profile["set-resources"]) | set(profile["groups"]) <= RULES
    asked = {name for resources in profile["set-resources"].values() for name in resources}
    assert "gpu" in asked and not asked & {"gpus", "nvidia_gpu"}  # which the executor passes to no sbatch
    assert profile["slurm-status-command"] == "squeue"


@pytest.mark.parametrize("attempt, minutes", [(1, 480), (2, 960), (3, 1440), (4, 1440)])
def test_time_limits_grow_with_the_attempt(attempt, minutes):
    profile = yaml.safe_load((ROOT / "workflow/profiles/slurm/config.yaml").read_text())
    assert eval(profile["set-resources"]["train"]["runtime"], {"attempt": attempt}) == minutes
