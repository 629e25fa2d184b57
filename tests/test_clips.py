"""A base model that makes clips goes the whole way: it trains, is evaluated, scored and shown."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import base_models
import rewards
from core.files import write_text
from core.media import chosen_frames, film_strip, to_media, to_pixels
from core.settings import ConfigError
from core.tables import read_table
from evaluation import images
from evaluation.contact_sheet import CELL, contact_sheet
from evaluation.evaluate import evaluate_run
from reporting import gallery
from reporting.figures.samples import load_images
from rewards.features import get_features
from runs.main_config import check_main
from tests.repository_copy import copy_repository
from tests.small_pipelines import save_cosmos
from training.__main__ import main as train
from voting.server import SHOWN, picture
from voting.session import Pair
from workflow.plan import make_plan

PLUGINS = Path(__file__).parent / "clip_plugins"
SUITE = "resources/prompts/counting_test.jsonl"
BASE = """
label: toy clips
pipeline: toy_clips
path: resources/none
image_size: 32
max_sequence_length: 1
rollout_steps: 4
evaluation_steps: 4
lora: {rank: 2, alpha: 2, target_modules: [to_q, to_out]}
"""
COSMOS = """
label: small Cosmos
pipeline: cosmos
path: small-cosmos
image_size: 32
max_sequence_length: 24
guidance_scale: 2.0
rollout_steps: 4
evaluation_steps: 4
clip: {frames: 5, width: 32, frames_per_second: 8, negative_prompt: a blur}
lora: {rank: 2, alpha: 2, target_modules: [to_q, to_out.0]}
"""
FRAMES = {"toy": 3, "cosmos": 5}
TASK = """
extends: counting
proxy: scene_aesthetic
proxy_metric: scene_aesthetic
auxiliary: [scene_preference]
monitor: [gold, frame_change, diversity]
suites: [clips]
"""
MAIN = {
    "seeds": [901],
    "tables": ["main"],
    "snapshot_shares": [0.5],
    "data_per_prompt": 1,
    "training": {"iterations": 2, "prompts_per_iteration": 2, "group_size": 6},
    "evaluation": {
        "images_per_prompt": 2,
        "held_out_scenes": False,
        "suites": {"clips": {"prompts": SUITE, "metrics": ["gold", "frame_change", "scene_aesthetic"]}},
    },
    "grid": [
        {"base": "toy", "task": "clips", "methods": ["gardo", "diffusion_nft", "ddrl_synthetic"]},
        {"base": "cosmos", "task": "clips", "methods": ["gardo", "ddrl_synthetic"]},
    ],
}


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    folder = copy_repository(tmp_path_factory.mktemp("clips"))
    (folder / "config" / "base_models" / "toy.yaml").write_text(BASE)
    (folder / "config" / "base_models" / "cosmos.yaml").write_text(COSMOS)
    (folder / "config" / "tasks" / "clips.yaml").write_text(TASK)
    save_cosmos(folder / "small-cosmos")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for package in (base_models, rewards):
            found = str(PLUGINS / package.__name__)
            patch.setattr(package, "__path__", [*package.__path__, found])
        patch.setattr("training.__main__.set_threads", lambda count: None)  # only a new process can set them
        made = make_plan(check_main(MAIN))
        made.write(made.trained)
        yield made


@pytest.fixture(scope="module")
def data(plan):
    """By base model."""
    names = {}
    with pytest.MonkeyPatch.context() as patch:
        for base in FRAMES:
            (names[base],) = plan.data_file(f"{base}__clips__ddrl_synthetic__s901")
            arguments = ["--base", base, "--task", "clips", "--kind", "synthetic", "--per-prompt", "1"]
            patch.setattr("sys.argv", ["training", "data", *arguments, "--out", names[base]])
            assert train() == 0
    return names


def test_the_repository_has_no_such_base_or_reward():
    assert "toy_clips" not in base_models.names() and "frame_change" not in rewards.names()


@pytest.mark.parametrize(
    ("base", "method"),
    [(row["base"], method) for row in MAIN["grid"] for method in row["methods"]],
)
def test_clips_go_the_whole_way(plan, data, base, method, monkeypatch):
    folder = Path("results/runs") / f"{base}__clips__{method}__s901"
    with_data = ["--data", data[base]] if plan.data_file(folder.name) else []
    monkeypatch.setattr("sys.argv", ["training", "run", str(folder), *with_data])
    assert train() == 0
    history = read_table(folder / "history.parquet")
    for name in ("frame_change", "gold", "proxy", "diversity"):
        assert history.loc[history["name"] == f"reward/{name}_mean", "value"].notna().all()
    settings = Path("results/config/evaluation/clips.yaml")
    evaluate_run(folder, settings, folder / "scores.parquet", folder / "image_scores.parquet")

    path = images.path_of(folder / "images", "clips", 2)
    pixels = np.stack(list(images.stream(path)))
    assert pixels.shape[1:] == (FRAMES[base], 32, 32, 3) and pixels.std() > 0
    scores = read_table(folder / "image_scores.parquet").query("step == 2")
    for metric, wanted in (("frame_change", "clip"), ("scene_aesthetic", "image")):
        reward = rewards.get(metric)
        assert reward.medium == wanted
        mine = scores[scores["metric"] == metric].sort_values(["prompt", "image"])["value"].to_numpy()
        clip = to_media(pixels[7][None])
        frames = clip if wanted == "clip" else clip[0]
        count = len(frames)
        alone = reward(frames, ["x"] * count, [{}] * count).mean().item()
        assert mine[7] == pytest.approx(alone, abs=1e-5)
    table = read_table(folder / "scores.parquet")
    assert {"kl_from_base", "diversity"} <= set(table["metric"]) and "diffusion_loss" not in set(
        table["metric"]
    )
    shown = load_images(folder, "clips", 2, np.array([0, 3]))
    assert shown.shape == (2, 2, 32, 3 * 32, 3)  # three frames side by side
    assert (folder / "images" / "clips_000002.png").stat().st_size > 1000
    if base == "cosmos":
        card, names = (folder / "adapter" / "README.md").read_text(), {}
        exec(re.search(r"```python\n(.*?)```", card, re.DOTALL)[1], names)
        assert len(names["clip"]) == FRAMES[base] and names["clip"][0].size == (32, 32)
        assert "pipeline_tag: text-to-video" in card


def test_a_reward_of_clips_is_refused_for_images(plan):
    write_text(Path("config/tasks/moving.yaml"), "extends: clips\nproxy: frame_change\n")
    grid = [{"base": "tiny-sd3", "task": "moving", "methods": ["grpo"]}]
    with pytest.raises(ConfigError, match="moving.yaml: 'frame_change' judges clips; tiny-sd3 makes images"):
        make_plan(check_main({**MAIN, "grid": grid}))
    with pytest.raises(rewards.RewardError, match="'frame_change' judges clips and was given images"):
        rewards.get("frame_change")(torch.rand(2, 3, 8, 8), ["a", "b"], [{}, {}])


@pytest.mark.parametrize("shape", [(8, 8, 3), (5, 8, 8, 3)])
def test_pixels_are_kept_as_they_are(tmp_path, shape):
    pixels = np.random.default_rng(0).integers(0, 256, (130, *shape), dtype=np.uint8)
    assert (to_pixels(to_media(pixels)).numpy() == pixels).all()
    path = tmp_path / "x.parquet"
    images.write(path, pixels, k=2, suite="x", step=0, made_from="y")
    assert (np.stack(list(images.stream(path))) == pixels).all()
    assert (images.load(path, np.array([1, 60]), 2) == pixels[[2, 3, 120, 121]].reshape(2, 2, *shape)).all()


def test_large_clips_are_held_one_by_one(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "GROUP_BYTES", 5 * 8 * 8 * 3 + 1)
    pixels = np.random.default_rng(0).integers(0, 256, (7, 5, 8, 8, 3), dtype=np.uint8)
    path = tmp_path / "x.parquet"
    images.write(path, iter(pixels), k=1, suite="x", step=0, made_from="y")
    assert (images.load(path, np.array([2, 6]), 1)[:, 0] == pixels[[2, 6]]).all()


def test_a_film_strip_shows_the_first_and_the_last_frame():
    clip = np.arange(9, dtype=np.uint8)[:, None, None, None] * np.ones((9, 4, 4, 3), np.uint8)
    assert film_strip(clip)[0, ::4, 0].tolist() == [0, 4, 8]
    assert (film_strip(clip[0]) == clip[0]).all()
    sheet = contact_sheet(np.stack([np.stack([clip, clip])] * 2), ["a", "b"])
    assert sheet.size[1] == 2 * CELL and (sheet.size[0] - 260) == 2 * 3 * CELL
    longer = contact_sheet(clip[None, None], ["a red circle bounces from side to side on black"])
    assert 260 < longer.size[0] - 3 * CELL < 400
    assert contact_sheet(clip[None, None], ["a" * 500]).size[0] - 3 * CELL == 520


def test_features_of_a_clip_are_the_mean_over_its_frames():
    encoder, clips = get_features("scene_encoder"), torch.rand(2, 3, 3, 32, 32)
    alone = torch.stack([encoder(clip).mean(0) for clip in clips])
    assert torch.allclose(encoder(clips), alone, atol=1e-5)


def plays(content: bytes, frames: np.ndarray) -> bool:
    """Whether a WebP shows exactly these frames."""
    with Image.open(io.BytesIO(content)) as shown:
        if getattr(shown, "n_frames", 1) != len(frames):
            return False
        found = [shown.seek(number) or np.asarray(shown.convert("RGB")) for number in range(len(frames))]
    return bool((np.stack(found) == frames).all())


def test_the_gallery_plays_clips():
    clips = np.random.default_rng(0).integers(0, 256, (3, 5, 8, 8, 3), dtype=np.uint8)
    sheet = base64.b64decode("".join(gallery.sprite(clips, 2)).partition("base64,")[2])
    black = np.zeros((5, 8, 8, 3), np.uint8)
    rows = [np.concatenate([clips[0], clips[1]], 2), np.concatenate([clips[2], black], 2)]
    assert plays(sheet, np.concatenate(rows, 1))
    long = chosen_frames(
        np.arange(93, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8), gallery.FRAMES
    )
    assert len(long) == gallery.FRAMES and (long[0, 0, 0, 0], long[-1, 0, 0, 0]) == (0, 92)


def test_people_vote_on_clips_that_play(tmp_path):
    clips = np.random.default_rng(0).integers(0, 256, (4, 5, 8, 8, 3), dtype=np.uint8)
    run = tmp_path / "run"
    path = images.path_of(run / "images", "motion", 3)
    images.write(path, clips, k=2, suite="motion", step=3, made_from="x")
    where = ("tiny-cosmos", "motion", "motion", 1, 1, 0, "a red circle moves left", str(run), str(run), 3, 3)
    content, kind = picture(Pair("p", *where, "a", "b", frames_per_second=8), "first")
    scale = SHOWN // 8
    assert kind == "webp" and plays(content, clips[2].repeat(scale, 1).repeat(scale, 2))
    with Image.open(io.BytesIO(content)) as shown:
        shown.seek(1)
        shown.load()
        assert shown.info["duration"] == 125
