"""DDRL on Cosmos-Predict2.5 without weights, prompts and GPU: its numbers, what it needs, what it refuses."""

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from PIL import Image

from core.settings import ConfigError
from runs import resolve
from tests.test_plan import all_jobs, bare, preset  # noqa: F401
from training.image_folder import METADATA
from workflow.estimate import report, training_table
from workflow.plan import make_plan
from workflow.readiness import Jobs, check_ready

OWN = ("paper_video", "paper_video_own")


@pytest.fixture
def own_files(bare):  # noqa: F811
    """Prompts of one's own, with a clip and a first frame each; the clips themselves are not there."""
    for name, frames in (("paper_video", False), ("paper_video_image", True)):
        folder = Path("data") / name
        folder.mkdir(parents=True)
        given = {"first_frame": "frame.png"} if frames else {}
        prompts = [{"tag": "clip", "prompt": f"a caption {i}", **given} for i in range(20)]
        Image.new("RGB", (160, 90)).save(folder / "frame.png")
        for part in ("train", "test"):
            (folder / f"{part}.jsonl").write_text("".join(json.dumps(p) + "\n" for p in prompts))
    return bare


def test_rows_have_the_numbers_of_the_released_code(bare):  # noqa: F811
    runs = make_plan(preset("paper_video")).runs
    assert {run.base for run in runs.values()} == {"cosmos-predict2.5-2b", "cosmos-predict2.5-14b"}
    run = runs["cosmos-predict2.5-2b__paper_video__ddrl_synthetic__s1"]
    training, base = run.training, run.base_model
    assert (training.prompts_per_iteration, training.group_size, base.rollout_steps) == (16, 8, 20)
    assert (base.guidance_scale, base.shown_guidance) == (1.0, 7.0)
    assert (base.image_size, base.clip.width, base.clip.frames) == (720, 1280, 93)
    assert run.parameters["data_beta"] == 0.01 and training.data_share == 1.0
    assert training.sde == "flow_cps" and training.gradient_steps == 1
    released = runs["cosmos-predict2.5-2b__paper_video__ddrl_released_ratio__s1"].training
    assert released == training.model_copy(update={"sde": "edm_churn"})
    dance = runs["cosmos-predict2.5-2b__paper_video__dance_grpo__s1"].training
    assert (dance.sde, dance.noise_level, dance.same_initial_noise) == ("dance_sde", 0.25, True)


def test_every_second_step_is_trained():
    from processes.reverse import Reverse

    run = resolve.resolve_run("cosmos-predict2.5-2b", "paper_video", "ddrl_synthetic", 1, {})
    process = object.__new__(Reverse)
    process.settings, process.trainable = run.training, range(0, 19)
    drawn = process.draw_steps(run.training.trained_steps, torch.Generator().manual_seed(0))
    assert drawn.tolist() == list(range(0, 20, 2))
    config = {"training": {"trained_steps": 11}}
    with pytest.raises(ConfigError, match=r"'trained_steps' is 11.* is 19 with a 'trained_stride' of 2"):
        resolve.resolve_run("cosmos-predict2.5-2b", "paper_video", "ddrl_synthetic", 1, config)


def test_settings_without_a_stride_are_what_they_were():
    run = resolve.resolve_run("tiny-sd3", "ocr", "grpo", 1, {})
    assert run.training.trained_stride is None and "trained_stride" not in run.content()["training"]


def test_the_plan_says_what_is_missing_and_makes_up_no_hours(bare):  # noqa: F811
    plan = make_plan(preset("paper_video"))
    table = training_table(plan, all_jobs(plan))
    assert set(table["source"]) == {"not measured"} and table["hours"].isna().all()
    text = report(plan, Counter(train=42), all_jobs(plan), "Plan")
    assert max(map(len, text.splitlines())) <= 100
    text = " ".join(text.split())
    assert "base models missing: cosmos-predict2.5-14b, cosmos-predict2.5-2b" in text
    assert text.count("NVIDIA Open Model License") == 1 and "videoalign" in text
    assert "vbench_categories (798), vbench_dimensions (944)" in text
    details = report(plan, Counter(train=42), all_jobs(plan), "Plan", details=True)
    assert "pin its commit" in details and "VideoReward" in details and "Apache-2.0 (VBench" in details
    with pytest.raises(ConfigError) as error:
        check_ready(plan, all_jobs(plan), jobs_run_here=True)
    assert "Cosmos-Predict2.5-14B needs a GPU" in str(error.value)


def test_rows_on_clips_of_ones_own_ask_for_them(own_files):
    plan = make_plan(preset(*OWN))
    methods = {run.method for run in plan.runs.values() if run.task == "paper_video_image"}
    assert {"sft", "ddrl_real", "sft_then_ddrl", "ddrl_synthetic", "dance_grpo"} <= methods
    with pytest.raises(ConfigError, match=f"data/paper_video/{METADATA} does not exist"):
        check_ready(
            plan, Jobs(data={("cosmos-predict2.5-2b", "paper_video_real", "real")}), jobs_run_here=False
        )


def test_what_is_not_there_of_ones_own_is_named(own_files):
    Path("data/paper_video_image/frame.png").unlink()
    with pytest.raises(
        ConfigError, match=r"train.jsonl, line 1.*'first_frame' names .*frame.png, which does no"
    ):
        make_plan(preset(*OWN))
    Path("data/paper_video/train.jsonl").unlink()
    with pytest.raises(
        ConfigError, match="paper_video_real.yaml: prompts: data/paper_video/train.jsonl does not"
    ):
        make_plan(preset(*OWN))
