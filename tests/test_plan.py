"""The papers' grid without prompts, weights and GPU: it resolves, says what it costs and what is missing."""

import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import constants
from snakemake.utils import update_config

from core.settings import ConfigError
from prompt_sets import FOLDER
from rewards.published import hub
from runs import resolve
from workflow.estimate import hours_lines, report, training_table
from workflow.plan import make_plan
from workflow.readiness import Jobs, check_ready, needed_bytes

ROOT = Path(__file__).parents[1]


def preset(*names: str) -> dict:
    """The main configuration under presets, as Snakemake layers them."""
    config = {}
    for name in ("config", *names):
        update_config(config, yaml.safe_load((ROOT / f"config/{name}.yaml").read_text()))
    return config


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """A folder with configuration and resources and nothing else; no weights of a hub, no GPU."""
    for part in ("config", "resources"):
        (tmp_path / part).symlink_to(ROOT / part)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub, "PINS", ROOT / "config/weights.yaml")  # which another module's fixture replaces
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**15, 0, 10**15))
    return tmp_path


def all_jobs(plan) -> Jobs:
    runs = set(plan.runs)
    files = {Path(p) for run in runs for p in plan.training_prompts(run) + plan.test_prompts(run)}
    sets = {path.stem for path in files if path.parent == FOLDER}  # the others are shipped
    return Jobs(train=runs, evaluate=runs, prompts=sets)


def test_the_papers_grid_resolves_with_the_papers_numbers(bare):
    plan = make_plan(preset("paper"))
    assert not (bare / "results/prompts").exists()
    for run in plan.runs.values():
        assert run.parameters.get("clip_range", 1e-4) == 1e-4, run.run  # not the tiny model's
        coded = run.method.endswith("official_code")
        assert coded or run.parameters.get("reset_after", 100) == 100, run.run
        steps = run.training.iterations * run.training.gradient_steps
        stated = {"paper_ocr": 600, "paper_ocr_long": 1400, "paper_geneval": 2000, "paper_counting": 2000}
        assert run.method == "base" or steps == stated.get(run.task, steps), run.run
        assert plan.test_prompts(run.run) and bool(plan.training_prompts(run.run)) == (run.method != "base")
    guided = {run.task: run.base_model.guidance_scale for run in plan.runs.values()}
    assert guided["paper_geneval_nft"] == 1.0 < guided["paper_geneval"]


def test_rows_of_the_public_code_have_its_numbers_by_base_and_task(bare):
    runs = make_plan(preset("paper")).runs
    seen = {
        run.task: tuple(run.parameters[key] for key in ("beta", "kl_threshold", "reset_after"))
        for run in runs.values()
        if run.method.endswith("official_code")
    }
    assert seen == {
        "paper_ocr": (0.04, 3e-4, 32),
        "paper_geneval": (0.07, 3e-4, 32),
        "paper_hps": (0.01, 3e-4, 32),
        "paper_geneval_nft": (0.04, 0.15, 16),
    }
    # A mean over all samples, of which a tenth is gated, has a threshold of a tenth.
    assert (
        runs["sd3.5-medium__paper_geneval_nft__diffusion_nft_gardo__s1"].parameters["kl_threshold"] == 0.015
    )


def test_a_rows_own_settings_reach_its_runs_alone():
    row = {"base": "tiny-sd3", "task": "ocr", "methods": ["gardo", "grpo"], "parameters": {"reset_after": 7}}
    plain = {"base": "tiny-sd3", "task": "counting", "methods": ["gardo"]}
    config = {"seeds": [1], "grid": [row, plain], "parameters": {"reset_after": 9}}
    own, other = (
        resolve.resolve_grid(config)[f"tiny-sd3__{task}__gardo__s1"] for task in ("ocr", "counting")
    )
    assert (own.parameters["reset_after"], other.parameters["reset_after"]) == (7, 9)


def test_a_rows_own_settings_do_not_reach_the_run_that_it_starts_from():
    row = {"base": "tiny-sd3", "task": "ocr", "methods": ["sft_then_ddrl"], "training": {"iterations": 3}}
    config = {"seeds": [1], "grid": [row], "training": {"iterations": 5}}
    runs = resolve.resolve_grid(config)
    first = resolve.starting_runs(runs, config)["tiny-sd3__ocr__sft__s1"]
    (run,) = runs.values()
    assert (run.training.iterations, first.training.iterations) == (3, 5) and run.start.hash == first.hash


@pytest.mark.parametrize(
    "second, message",
    [
        ({"parameters": {"beta": 0.5}}, r"grid row 2: tiny-sd3__ocr__gardo__s1 stands in an earlier row"),
        ({"parameters": {"gate": 1}}, r"'grid row 2: parameters.gate': no method has it; valid: adaptive"),
        ({"training": {"iteration": 1}}, r"unknown key 'iteration'"),
        ({}, r"grid row 2: tiny-sd3__ocr__gardo__s1 stands in an earlier row as well"),
    ],
)
def test_a_wrong_setting_of_a_row_is_named(second, message):
    row = {"base": "tiny-sd3", "task": "ocr", "methods": ["gardo"]}
    with pytest.raises(ConfigError, match=message):
        resolve.resolve_grid({"seeds": [1], "grid": [row, {**row, **second}]})


def test_the_base_check_samples_each_suite_once_and_no_changed_base_model(bare):
    plan = make_plan(preset("paper"))
    tasks = {(plan.runs[name].task, plan.runs[name].seed) for name in plan.base_runs()}
    assert tasks == {(t, s) for t in ("paper_geneval", "paper_counting", "paper_hps") for s in (1, 2, 3)}
    small = make_plan(preset("paper", "one_gpu"))
    assert [small.runs[name].task for name in small.base_runs()] == ["paper_ocr_one_gpu"]


def test_every_published_row_of_gardo_has_a_run(bare):
    plan = make_plan(preset("paper"))
    planned = {
        (run.task, run.method, run.training.iterations * run.training.gradient_steps or None)
        for run in plan.runs.values()
    }
    published = yaml.safe_load((ROOT / "config/published.yaml").read_text())
    for table in ("gardo_table_1", "gardo_table_2", "gardo_table_3", "ddrl_ocr"):
        for task, rows in published[table]["rows"].items():
            if task.startswith("paper_") and not task.endswith("one_gpu"):
                shown = [
                    row for row in rows if row.get("shown", True) and row["step"] or row["method"] == "base"
                ]
                assert {(task, row["method"], row["step"]) for row in shown} <= planned


def test_everything_that_is_missing_is_said_at_once(bare):
    plan = make_plan(preset("paper"))
    with pytest.raises(ConfigError) as error:
        check_ready(plan, all_jobs(plan), jobs_run_here=True)
    message = str(error.value)
    for base in ("stabilityai/stable-diffusion-3.5-medium", "black-forest-labs/FLUX.1-dev"):
        assert "accept its licence" in message and f"https://huggingface.co/{base}" in message
    assert "SD3.5-Medium needs a GPU" in message
    assert "python -m rewards fetch" in message and "dinov3" in message and "hps_v3" in message
    assert "prompt_sets" not in message  # what is fetched has its own job
    with pytest.raises(ConfigError) as error:
        check_ready(plan, all_jobs(plan), jobs_run_here=False)
    assert "needs a GPU" not in str(error.value)  # a cluster has its own


def test_jobs_ask_for_what_they_need_and_no_more(bare, monkeypatch):
    plan = make_plan(preset("paper"))
    check_ready(plan, Jobs(), jobs_run_here=True)
    check_ready(plan, Jobs(prompts={"counting_train", "hps_test"}), jobs_run_here=True)
    small = make_plan(preset("smoke"))
    check_ready(small, all_jobs(small), jobs_run_here=True)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 0))
    with pytest.raises(ConfigError, match=r"results/ needs about 0\.\d GB more, 0\.0 GB are free"):
        check_ready(small, all_jobs(small), jobs_run_here=True)
    assert needed_bytes(small, Jobs()) == 0


def test_hours_are_steps_times_seconds_and_unknown_where_nobody_measured(bare):
    plan = make_plan(preset("paper"))
    table = training_table(plan, all_jobs(plan)).set_index("task")
    row = table.loc["paper_ocr"]  # eight trained methods, three seeds
    assert (row["runs"], row["steps"], row["device"]) == (24, 24 * 600, "GPU")
    assert row["hours"] == pytest.approx(24 * 600 * 49 * 8 / 3600)
    unknown = table.loc["paper_hps"]
    assert unknown["source"] == "not measured" and unknown[["s/step", "hours"]].isna().all()
    lines = hours_lines(table.reset_index())
    assert "GPU-hours" in lines[0] and str(table["runs"][table["hours"].isna()].sum()) in lines[1]


def test_hours_follow_the_images_of_a_step(bare):
    config = preset("config")
    whole = training_table(*(lambda p: (p, all_jobs(p)))(make_plan(config)))
    halved = {**config, "training": {"prompts_per_iteration": 3}}  # the OCR task takes six
    half = training_table(*(lambda p: (p, all_jobs(p)))(make_plan(halved)))
    hours = [t.set_index("task")["hours"]["ocr"] for t in (whole, half)]
    assert hours[1] == pytest.approx(hours[0] / 2) and set(whole["device"]) == {"CPU"}


def test_the_plan_names_licences_addresses_and_sums(bare):
    plan = make_plan(preset("paper", "one_gpu"))
    text = report(plan, Counter(train=4), all_jobs(plan), "Plan", details=True)
    assert "licence (stabilityai-ai-community)" in text and "FLUX" not in text
    assert "DINOv3 License, to be accepted there" in text
    assert "1018 prompts" in text


def test_the_plan_fits_on_a_screen_and_names_what_is_missing(bare):
    plan = make_plan(preset("paper"))
    lines = report(plan, Counter(train=126, sample=126, score=126), all_jobs(plan), "Plan").splitlines()
    assert len(lines) <= 45 and max(map(len, lines)) <= 100
    text = " ".join(" ".join(lines).split())
    assert "base models missing: flux.1-dev, sd3.5-medium" in text and "hps_v3" in text
    assert "no commit pinned: geneval_mask2former" in text and "licences to accept: flux-1-dev" in text
    assert "geneval_test (553), geneval_train (?)" in text and "126 train" in text


@pytest.mark.parametrize(
    "tables, message",
    [
        (["second_base"], r"'second_base', for which the grid has no row.*bases after the first"),
        (["diffusion_nft"], r"'diffusion_nft', for which the grid has no row.*methods base, diffusion_nft\*"),
    ],
)
def test_a_table_that_would_be_empty_is_named_before_any_job(bare, tables, message):
    plan = make_plan({**preset("config"), "tables": tables})
    check_ready(plan, Jobs(), jobs_run_here=True)  # nobody asks for tables
    with pytest.raises(ConfigError, match=message):
        check_ready(plan, Jobs(tables=True), jobs_run_here=True)


def test_an_unknown_table_names_the_valid_ones(bare):
    with pytest.raises(ConfigError, match="key 'tables' names 'mian'; valid: .*main, .*counting"):
        make_plan({**preset("config"), "tables": ["main", "mian"]})


def test_a_claim_about_an_unknown_method_is_named_before_any_job(bare, monkeypatch, tmp_path):
    stated = Path("config/claims.yaml").read_text()
    broken = tmp_path / "claims.yaml"
    broken.write_text(stated.replace("method: gardo_no_diversity", "method: gardo_no_divresity"))
    monkeypatch.setattr("workflow.rendering.CLAIMS", broken)
    with pytest.raises(ConfigError, match=r"claims.G4: method names 'gardo_no_divresity'; valid: awm, base"):
        make_plan(preset("config"))


@pytest.mark.parametrize(
    "stated, broken, message",
    [
        (
            "oracle: grpo_oracle",
            "oracle: grpo_orcale",
            r"rows.oracle names 'grpo_orcale'; valid: awm, base",
        ),
        (
            '"*ocr_shortcut_strong*":',
            "ocr_shrotcut:",
            r"tasks names 'ocr_shrotcut'; valid: .*counting, geneval",
        ),
    ],
)
def test_a_control_or_task_that_does_not_exist_is_named_before_any_job(
    bare, monkeypatch, tmp_path, stated, broken, message
):
    path = tmp_path / "instrument.yaml"
    text = Path("config/instrument.yaml").read_text()
    assert stated in text
    path.write_text(text.replace(stated, broken))
    monkeypatch.setattr("reporting.instrument_settings.INSTRUMENT", path)
    with pytest.raises(ConfigError, match=message):
        make_plan(preset("config"))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"parameters": {"clip_rnage": 1}}, r"parameters.clip_rnage.*no method has it.*clip_range"),
        ({"parameters": {"clip_range": -1}}, r"parameters of base.*'clip_range' is -1"),
    ],
)
def test_parameters_over_the_method_files_are_checked(bare, changes, message):
    with pytest.raises(ConfigError, match=message):
        make_plan({**preset("shown"), **changes})


def test_parameters_reach_the_methods_that_have_them():
    config = {"parameters": {"reset_after": 7}}
    runs = {m: resolve.resolve_run("tiny-sd3", "ocr", m, 1, config) for m in ("gardo", "grpo")}
    assert runs["gardo"].parameters["reset_after"] == 7 and "reset_after" not in runs["grpo"].parameters


def test_real_data_must_be_named(bare):
    config = preset("paper")
    config["grid"] = [{"base": "sd3.5-medium", "task": "paper_ocr_ddrl", "methods": ["ddrl_real"]}]
    with pytest.raises(ConfigError, match=r"'data' is 'real'.*paper_ocr_ddrl.yaml has no 'real_data'"):
        make_plan(config)
