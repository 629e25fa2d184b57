"""The real DAG on the smoke config, through the real command line, in a copy of the repository."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from browser import check_report, needs_browser
from repository_copy import copy_repository

from evaluation.scores import KL
from reporting import stored

UNJUDGED = {"not testable here", "by construction"}
FIGURES = """learning_curves_images kl_and_gate over_optimisation proxy_versus_gold turn_tiny-sd3_ocr pareto
diversity counting evaluation_tiny-sd3_ocr evaluation_images_tiny-sd3_ocr samples_tiny-sd3_ocr
samples_over_training_tiny-sd3_ocr uncertain_tiny-sd3_ocr""".split()
SMOKE = ["--configfile", "config/smoke.yaml", "--"]


def snakemake(folder: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if check and done.returncode:
        logs = "\n".join(f"{p}:\n{p.read_text()[-1500:]}" for p in folder.rglob("logs/**/*.log"))
        raise AssertionError(
            f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}\n{logs[-6000:]}"
        )
    return done


def planned(folder: Path) -> set[str]:
    """``rule run`` of every job that a dry run of the report would start."""
    done = snakemake(folder, "--dry-run", *SMOKE, "report")
    jobs, rule = set(), None
    for line in (done.stdout + done.stderr).splitlines():
        if line.startswith(("rule ", "localrule ")):
            rule = line.split()[1].rstrip(":")
            if rule != "report":  # which only collects
                jobs.add(rule)
        elif line.strip().startswith("wildcards:") and rule:
            jobs.add(f"{rule} {line.split('run=')[-1].strip()}")
    return jobs


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    return copy_repository(tmp_path_factory.mktemp("goodhart"))


@pytest.fixture(scope="module")
def finished(copy):
    """The smoke grid, run once."""
    snakemake(copy, *SMOKE, "report", "base_check")
    return copy


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda c: c["grid"][0]["methods"].append("magic"), "unknown method 'magic'"),
        (lambda c: c["grid"][0].update(base="sd9"), "unknown base model 'sd9'"),
        (lambda c: c.update(sedes=[1]), "sedes"),
        (lambda c: c["training"].update(noise_level=-1), "noise_level"),
        (lambda c: c.update(tables=["mian"]), "mian"),
    ],
)
def test_bad_input_stops_before_any_job(copy, tmp_path, change, message):
    config = yaml.safe_load((copy / "config/smoke.yaml").read_text())
    change(config)
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump(config))
    done = snakemake(copy, "--configfile", str(path), "--", "results/tables", check=False)
    output = done.stdout + done.stderr
    assert done.returncode != 0 and message in output
    assert "Finished job" not in output and "rule train" not in output


def test_changed_weights_stop_before_any_job(copy, tmp_path):
    path = copy / "resources/tiny-sd3/transformer/diffusion_pytorch_model.safetensors"
    content = path.read_bytes()
    try:
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        done = snakemake(copy, "--dry-run", *SMOKE, "results/tables", check=False)
    finally:
        path.write_bytes(content)
    output = done.stdout + done.stderr
    assert done.returncode != 0 and "expected sha256" in output and path.name in output


def test_an_isolated_metric_builds_its_environment_before_scoring_and_trains_nothing_again(copy, tmp_path):
    config = yaml.safe_load((copy / "config/smoke.yaml").read_text())
    config["grid"] = [{"base": "tiny-sd3", "task": "ocr", "methods": ["base"]}]
    suite = {"prompts": "resources/prompts/ocr_test.jsonl"}
    config["evaluation"]["suites"] = {
        "ocr": {**suite, "metrics": ["ocr", "hps_v3"]},
        "geneval": {**suite, "metrics": ["ocr"]},
    }
    path = tmp_path / "isolated.yaml"
    path.write_text(yaml.safe_dump(config))
    done = snakemake(copy, "--dry-run", "--configfile", str(path), "--", "results/scores.parquet")
    jobs = re.split(r"\n(?:local)?rule ", done.stdout + done.stderr)
    by_rule = {job.partition(":")[0]: job for job in jobs[1:]}
    assert "output: results/environments/hps_v3" in by_rule["reward_environment"]
    assert "results/environments/hps_v3" in by_rule["evaluate"]
    assert "results/environments" not in by_rule["train"]


@pytest.mark.slow
def test_the_papers_grid_is_planned_without_weights_and_stops_before_the_first_job(copy):
    paper = ["--configfile", "config/paper.yaml", "--"]
    done = snakemake(copy, "--dry-run", "--quiet", "rules", *paper, "results/tables", "results/base_check.md")
    jobs = dict(line.split() for line in done.stdout.splitlines() if len(line.split()) == 2)
    assert jobs["train"] == jobs["evaluate"] == "126"
    assert jobs["prompts"] == "10" and jobs["data"] == jobs["base_check"] == "1"
    done = snakemake(copy, *paper, "results/tables", check=False)
    output = done.stdout + done.stderr
    assert done.returncode != 0 and "not everything is at hand; no job was started" in output
    assert "stable-diffusion-3.5-medium" in output and "rule train" not in output
    snakemake(copy, *paper, "results/prompts/counting_test.jsonl")  # which needs none of it
    assert len((copy / "results/prompts/counting_test.jsonl").read_text().splitlines()) == 150


@pytest.mark.slow
def test_smoke_run_writes_tables_figures_and_scores(finished):
    config = yaml.safe_load((finished / "config/smoke.yaml").read_text())
    scores = pd.read_parquet(finished / "results/scores.parquet")
    wanted = {
        f"{row['base']}__{row['task']}__{method}__s{seed}"
        for row in config["grid"]
        for method in row["methods"]
        for seed in config["seeds"]
    }
    assert set(scores.run) == wanted
    assert set(scores.role) == {"proxy", "auxiliary", "unseen", "gold", "diversity", "diversity_kind", "cost"}
    assert scores.value.notna().all()
    for table in config["tables"]:
        for suffix in ("csv", "md", "tex"):
            assert (finished / f"results/tables/{table}.{suffix}").stat().st_size > 100
    checked = pd.read_csv(finished / "results/base_check.csv")
    assert {"geneval", "geneval_partial", "ocr"} <= set(checked[checked["expected"].notna()].metric)
    drawn = {p.name for p in (finished / "results/figures").iterdir()}
    assert {f"{name}.{kind}" for name in FIGURES for kind in ("png", "pdf")} <= drawn
    absent = (finished / "results/figures/not_drawn.txt").read_text()
    assert "multi_reward: no run of grpo_multi_reward" in absent
    claims = json.loads((finished / "results/claims.json").read_text())
    assert {c["id"] for c in claims} >= {*(f"G{i}" for i in range(1, 11)), *(f"D{i}" for i in range(1, 7))}
    assert {c["verdict"] for c in claims if c["task"] and c["base"] != c["task"]} <= UNJUDGED
    standings = json.loads((finished / "results/instrument.json").read_text())["standings"]
    assert {s["reading"] for s in standings} == {"not testable"}  # nobody trains controls here
    measured = scores[scores.suite == "model"]
    untrained = measured[(measured.method == "base") & (measured.metric == KL)]
    assert set(measured.run) == wanted and (untrained.value == 0).all()


@pytest.mark.slow
def test_nothing_is_left_to_do_and_a_remark_re_trains_nothing(finished):
    assert planned(finished) == set()
    for path in (
        "config/methods/gardo.yaml",
        "training/trainer.py",
        "config/tasks/geneval.yaml",
        "methods/gardo.py",
    ):
        (finished / path).write_text((finished / path).read_text() + "\n# a remark\n")
    assert planned(finished) == set()
    everything = {"answer", "tables", "pages", "figures", "claims", "instrument"}
    for style, drawn in (
        ("config/tables.yaml", {"answer", "tables", "pages"}),
        ("config/figures.yaml", {"answer", "tables", "pages", "figures"}),
        ("config/claims.yaml", {"answer", "tables", "pages", "figures", "claims"}),
        ("config/instrument.yaml", everything),
        ("reporting/tables.py", everything | {"gallery"}),  # any file of the package: none is listed twice
    ):
        (finished / style).write_text((finished / style).read_text() + "\n# another style\n")
        assert planned(finished) == drawn
    snakemake(finished, *SMOKE, "report")


@pytest.mark.slow
@needs_browser
def test_the_report_is_one_file_that_opens_offline(finished, tmp_path):
    path = finished / "results/report.html"
    # As the Makefile has it.
    landing = "--report-metadata", "workflow/report/metadata.yaml"
    snakemake(finished, "--report", str(path), *landing, *SMOKE, "report")
    wanted = {
        "Checks of the instrument": "results/instrument.html",
        "Claims": "results/claims.html",
        "Figures": "over_optimisation",
        "Tables": "cost_runs",
    }
    opens_on = ["What can be judged", "negative control", "What is not known", "Images"]
    check_report(path, tmp_path, {**wanted, "How it was made": "provenance"}, opens_on)


@pytest.mark.slow
def test_a_changed_method_re_trains_that_method_alone(finished):
    path = finished / "config/methods/gardo.yaml"
    before = path.read_text()
    value = yaml.safe_load(before)
    value["parameters"]["beta"] = 0.05
    path.write_text(yaml.safe_dump(value, allow_unicode=True))
    try:
        trained = {job.split()[1] for job in planned(finished) if job.startswith("train ")}
        # gardo on two tasks, and gardo_no_diversity, which extends it, on one; two seeds
        assert {run.split("__")[2] for run in trained} == {"gardo", "gardo_no_diversity"}
        assert len(trained) == 6
    finally:
        path.write_text(before)
    assert planned(finished) <= {"tables"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, rule, task", [("geneval_train", "train", "geneval"), ("ocr_test", "evaluate", None)]
)
def test_other_prompts_make_what_they_enter_again(finished, name, rule, task):
    path = finished / f"resources/prompts/{name}.jsonl"
    before, times = path.read_text(), (path.stat().st_atime, path.stat().st_mtime)
    path.write_text("".join(reversed(before.splitlines(keepends=True))))
    try:
        made = {job.split()[1] for job in planned(finished) if job.startswith(f"{rule} ")}
        assert made and all(task in (None, run.split("__")[1]) for run in made)
        assert all(run.split("__")[1] != "counting" for run in made)
        assert (rule == "train") == any(job.startswith("train ") for job in planned(finished))
    finally:
        path.write_text(before)
        os.utime(path, times)
    assert planned(finished) <= {"tables"}


@pytest.mark.slow
def test_the_same_run_gives_the_same_scores_twice(finished):
    run = finished / "results/runs/tiny-sd3__geneval__gardo__s901"
    first = pd.read_parquet(run / "scores.parquet")
    shutil.rmtree(run / "images")
    (run / "scores.parquet").unlink()
    snakemake(finished, *SMOKE, f"results/runs/{run.name}/scores.parquet")
    assert pd.read_parquet(run / "scores.parquet").equals(first)


@pytest.mark.slow
def test_stored_runs_give_the_same_tables_without_training(finished, tmp_path):
    store = tmp_path / "store"
    stored.keep(sorted((finished / "results/runs").glob("*__s90*")), store)
    elsewhere = copy_repository(tmp_path / "elsewhere")
    done = snakemake(elsewhere, "--config", f"stored_runs={store}", *SMOKE, "results/tables")
    output = done.stdout + done.stderr
    assert "rule restore" in output and "rule train" not in output and "rule evaluate" not in output
    for name in ("main", "turn", "selection", "cost_runs"):
        table = f"results/tables/{name}.csv"
        assert (elsewhere / table).read_bytes() == (finished / table).read_bytes()


NEW_METHOD = '''"""REINFORCE: the policy gradient without a ratio."""

from methods import Loss, Method, Prepared
from methods.maths.advantages import group_advantages


class Reinforce(Method):
    name = "reinforce"

    def prepare(self, rollout):
        advantages = group_advantages(rollout.rewards, rollout.groups, "none")
        return Prepared(advantages, advantages > -9)

    def loss(self, batch):
        loss = -(batch.advantages * batch.log_prob).sum() / batch.rows
        return Loss(loss, logged={"policy_loss": loss.item()})
'''
NEW_ROW = "label: REINFORCE\nalgorithm: reinforce\nsource: ours\n"


@pytest.mark.slow
def test_a_dropped_in_method_appears_in_the_tables(finished, tmp_path):
    """One new file and one YAML; nothing else of the copy is touched."""
    config = yaml.safe_load((finished / "config/smoke.yaml").read_text())
    config["seeds"], config["tables"] = [901], ["main"]
    config["grid"] = [{"base": "tiny-sd3", "task": "geneval", "methods": ["base", "reinforce_row"]}]
    mine, algorithm, row = (
        tmp_path / "mine.yaml",
        finished / "methods/reinforce.py",
        finished / "config/methods/reinforce_row.yaml",
    )
    mine.write_text(yaml.safe_dump(config))
    algorithm.write_text(NEW_METHOD)
    row.write_text(NEW_ROW)
    try:
        snakemake(finished, "--configfile", str(mine), "--", "results/tables")
        table = (finished / "results/tables/main.md").read_text()
        assert re.search(r"^\| REINFORCE.* \| 3 \|", table, re.MULTILINE)  # marked: the copy has no commit
    finally:
        algorithm.unlink()
        row.unlink()
