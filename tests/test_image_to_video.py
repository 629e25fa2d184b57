"""Clips that go on from a given first frame: prompts, training, sampling, data and evaluation."""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from base_models import open_base_model
from base_models.base import CONDITION, POLICY
from base_models.configuration import BaseModelConfig
from core.media import to_media
from core.prompts import read
from core.settings import ConfigError
from evaluation import measures
from evaluation.configuration import EvaluationConfig, RunEvaluation, SuiteConfig
from evaluation.media import check_media
from evaluation.sample import Sampler, evaluation_noise
from methods.maths.sde import STEPS, flow_sde_step
from processes.base import noised
from processes.sampling import Transition, sample_ode, sample_trajectories
from runs.config_files import load_base_model, load_task
from runs.resolve import resolve_run
from scenes.motion import FRAMES, render_clip
from scenes.vocabulary import IMAGE_SIZE
from tests.small_pipelines import save_cosmos
from tests.test_base_models import spread
from training import data, first_frames
from training.image_folder import ImageFolder, ImageFolderError, load_clip
from training.prompts import PromptSet

CIRCLE = {"class": "circle", "count": 1, "color": "red", "motion": {"kind": "move", "direction": "left"}}
PROMPT = {"tag": "direction", "prompt": "it moves left", "include": [CIRCLE]}
SEEDED = [{**PROMPT, "first_frame": seed} for seed in (3, 4)]
GUIDED = 2.0


def write(path: Path, prompts: list[dict]) -> Path:
    path.write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts))
    return path


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cosmos") / "small"
    save_cosmos(folder)
    value = yaml.safe_load(Path("config/base_models/cosmos-predict2.5-2b.yaml").read_text())
    value |= {"path": str(folder), "needs_gpu": False, "dtype": "float32", "image_size": IMAGE_SIZE}
    value |= {"max_sequence_length": 24, "guidance_scale": GUIDED, "gradient_checkpointing": False}
    value["clip"] |= {"frames": FRAMES, "width": IMAGE_SIZE, "negative_prompt": "a blur"}
    return BaseModelConfig.model_validate(value)


@pytest.fixture(scope="module")
def model(config):
    opened = open_base_model(config)
    opened.add_adapter()
    spread(opened, 0.3)
    return opened


@pytest.fixture(scope="module")
def prompts(model, tmp_path_factory):
    """Two prompts of one text whose first frames differ."""
    return PromptSet(write(tmp_path_factory.mktemp("prompts") / "p.jsonl", SEEDED), {}, model)


def initial(model, count: int = len(SEEDED)) -> torch.Tensor:
    return torch.randn(count, *model.latent_shape, generator=torch.Generator().manual_seed(0))


def test_a_seed_gives_the_first_frame_of_the_clip_that_is_drawn_with_it(model, prompts):
    drawn = to_media(np.stack([render_clip(prompt, prompt["first_frame"]) for prompt in SEEDED]))
    given = prompts.embeddings.tensors[CONDITION]
    assert torch.allclose(given, model.encode(drawn[:, :1]), atol=1e-5)
    assert (given[0] - given[1]).abs().mean() > 1e-3
    states = prompts.embeddings.tensors["encoder_hidden_states"]
    assert torch.equal(states[0], states[1])  # the text is the same


def test_a_picture_is_cut_and_scaled_to_the_base_model(model, tmp_path):
    wide = Image.new("RGB", (3 * IMAGE_SIZE, IMAGE_SIZE), "white")
    wide.paste((255, 0, 0), (IMAGE_SIZE, 0, 2 * IMAGE_SIZE, IMAGE_SIZE))
    (tmp_path / "frames").mkdir()
    wide.save(tmp_path / "frames" / "wide.png")
    path = write(tmp_path / "p.jsonl", [{**PROMPT, "first_frame": "frames/wide.png"}])
    red = torch.tensor([1.0, 0, 0])[None, None, :, None, None].expand(1, 1, 3, IMAGE_SIZE, IMAGE_SIZE)
    given = PromptSet(path, {}, model).embeddings.tensors[CONDITION]
    assert (given - model.encode(red)).abs().mean() < 0.05  # but for the borders' last pixels


def test_embeddings_that_are_kept_belong_to_their_frames(tmp_path):
    path = write(tmp_path / "p.jsonl", [{**PROMPT, "first_frame": "a.png"}])
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    before = first_frames.identities(path, read(path))
    Image.new("RGB", (8, 8), "blue").save(tmp_path / "a.png")
    assert first_frames.identities(path, read(path)) != before
    assert first_frames.identities(path, [PROMPT]) == ["it moves left"]  # as it was for texts alone


@pytest.mark.parametrize("sde", STEPS)
def test_sampling_keeps_the_frame_and_no_ratio_or_kl_sees_it(model, prompts, sde):
    given = prompts.embeddings.tensors[CONDITION]
    with model.using(POLICY):
        plain = sample_ode(model, prompts.embeddings, initial(model), steps=4, batch=2, empty=prompts.empty)
    assert torch.allclose(plain[:, :, :1], given, atol=1e-5)

    sigmas, stochastic = model.sigmas(8), range(0, 7)
    transition = Transition(sde, 0.3, sigmas)
    noises = torch.randn(len(stochastic), *initial(model).shape, generator=torch.Generator().manual_seed(1))
    with model.using(POLICY):
        rolled = sample_trajectories(
            model, prompts.embeddings, initial(model), transition, stochastic, noises, empty=prompts.empty
        )
    assert rolled.latents.isfinite().all()
    # The noise of the stochastic steps is taken back by the last one, up to rounding in what it moved.
    reach = max(1.0, rolled.latents[-2, :, :, :1].abs().max().item())
    assert torch.allclose(rolled.latents[-1, :, :, :1], given, atol=1e-6 * reach)

    images = torch.arange(len(SEEDED))
    for step in stochastic:
        x, sigma = rolled.latents[step], sigmas[step].expand(len(SEEDED))
        with torch.no_grad():
            with model.using(POLICY):
                ours = model.velocity(x, sigma, prompts.embeddings, prompts.empty)
            with model.using(None):
                base = model.velocity(x, sigma, prompts.embeddings, prompts.empty)
        new = rolled.again(ours, torch.full_like(images, step), images)
        old = rolled.again(base, torch.full_like(images, step), images)
        assert torch.equal(new.mean[:, :, :1], old.mean[:, :, :1])  # a ratio of exactly 1 and no KL
        assert (new.mean - old.mean).abs().max() > 1e-4  # which the other frames have


def test_the_first_noise_is_finite_on_sigmas_just_below_1(model):
    """UniPC without karras sigmas begins at 1 - 1e-6, where the SDE's noise would be 700 times too strong."""
    x = torch.zeros(1, 2)
    sigmas = model.sigmas(8)
    for first in (sigmas[0], torch.tensor(1.0)):  # as the config has it, and what is returned above the cap
        step = flow_sde_step(x, x, first, sigmas[1], sigma_second=sigmas[1], noise_level=0.7)
        assert torch.isfinite(step.std).all() and step.std.max() < 15 and step.noise_std.max() < 2
    near = flow_sde_step(x, x, 1 - 1e-6, sigmas[1], sigma_second=sigmas[1], noise_level=0.7)
    assert near.std.max() > 600  # what the cap spares us


def test_the_released_step_of_ddrl_is_the_churned_euler_step_of_edm():
    """cosmos-rl steps from the churned sigma to the next one and then churns again, in EDM's coordinates."""
    eta, before, after = 1 / 21, 80.0, 60.0
    rng = torch.Generator().manual_seed(0)
    x0, drawn, noise = torch.randn(3, 2, 5, generator=rng, dtype=torch.float64)
    churned, next_churned = before * (1 + eta), after * (1 + eta)
    x = churned * drawn
    mean = x0 + after / churned * (x - x0)
    x_next = mean + after * (eta**2 + 2 * eta) ** 0.5 * noise

    sigma, sigma_next = (torch.tensor(s / (1 + s), dtype=torch.float64) for s in (churned, next_churned))
    flow = x / (1 + churned)
    level = 2 / math.pi * math.acos(1 / (1 + eta))
    assert level == pytest.approx(load_task("paper_video").training["noise_level"], abs=1e-4)
    step = STEPS["edm_churn"]((flow - x0) / sigma, flow, sigma, sigma_next, noise_level=level, noise=noise)
    assert torch.allclose(step.mean * (1 + next_churned), mean, atol=1e-9)
    assert torch.allclose(step.x_next * (1 + next_churned), x_next, atol=1e-9)
    assert torch.allclose(step.log_prob, -(x_next - mean).square().mean(1), rtol=1e-6)


@pytest.mark.parametrize("sigma", [0.01, 0.5, 0.99])
def test_the_diffusion_loss_of_given_frames_is_0(model, prompts, sigma):
    latents = model.held(data.real_latents(model, prompts, 1, batch=2), prompts.embeddings)
    eps, sigmas = initial(model), torch.full((2,), sigma)
    with torch.no_grad():
        velocity = model.predict(noised(latents, eps, sigmas), sigmas, prompts.embeddings)
    error = (velocity - (eps - latents)).abs()
    assert error[:, :, :1].max() < 1e-3 and error[:, :, 1:].max() > 0.1


def test_drawn_data_go_on_from_the_frame_and_are_the_same_every_time(model, prompts, tmp_path):
    latents = data.real_latents(model, prompts, 2, batch=3)
    assert latents.shape == (4, *model.latent_shape) and torch.equal(latents[0], latents[1])
    clips = to_media(np.stack([render_clip(prompt, prompt["first_frame"]) for prompt in SEEDED]))
    assert torch.allclose(latents[::2], model.encode(clips), atol=1e-4)
    assert torch.allclose(latents[::2, :, :1], prompts.embeddings.tensors[CONDITION], atol=1e-3)
    data.save(tmp_path / "x.safetensors", latents, prompts, 2, model)
    kept = data.DataSet(tmp_path / "x.safetensors", prompts)
    assert torch.equal(kept.latents[::2, :, :1], prompts.embeddings.tensors[CONDITION])
    other = PromptSet(write(tmp_path / "p.jsonl", SEEDED[::-1]), {}, model)  # the same texts, other frames
    with pytest.raises(ValueError, match="was made for other prompts"):
        data.DataSet(tmp_path / "x.safetensors", other)


def test_without_a_frame_every_clip_is_another_one(model):
    drawn = data.encode_scenes(model, [PROMPT], 2, "real data", per_prompt=2)
    assert (drawn[0] - drawn[1]).abs().mean() > 1e-3


def test_synthetic_data_keep_the_frame(model, prompts):
    with model.using(None):
        latents = data.synthetic_latents(model, prompts, 1, batch=2)
    assert torch.allclose(latents[:, :, :1], prompts.embeddings.tensors[CONDITION], atol=1e-5)


def test_held_out_diffusion_loss_and_kl_of_clips(model, prompts):
    held_out = model.held(data.encode_scenes(model, SEEDED, 2, "held-out data"), prompts.embeddings)

    def loss(latents):
        rng = torch.Generator().manual_seed(0)
        return measures.diffusion_loss(model, prompts.embeddings, latents, rng, batch=2)

    assert loss(held_out) > 0
    moved = held_out.clone()
    moved[:, :, :1] += 1  # frames that are not the given ones cost
    assert loss(moved) > loss(held_out) + 0.1
    found = measures.kl_from_base(
        model,
        prompts.embeddings,
        initial(model),
        noise_level=0.7,
        rng=torch.Generator().manual_seed(0),
        batch=2,
        empty=prompts.empty,
    )
    assert 0 < found < float("inf")


def test_evaluation_samples_clips_from_their_frames(config, tmp_path):
    file = write(tmp_path / "p.jsonl", SEEDED)
    suites = {"own": SuiteConfig(prompts=str(file), metrics=["frame_difference"])}
    shared = {"images_per_prompt": 1, "batch": 2, "features": "scene_encoder", "kl_noise_level": 0.7}
    settings = RunEvaluation(**shared, held_out_scenes=True, suites=suites, roles={})
    run = resolve_run("tiny-sd3", "counting", "base", 1, {}).model_copy(update={"base_model": config})
    sampler = Sampler(run, settings, "cpu")
    sampler.model.add_adapter()
    pixels = np.stack(list(sampler.images("own")))
    frames = [first_frames.first_frame(file, prompt, IMAGE_SIZE, IMAGE_SIZE) for prompt in SEEDED]
    decoded = sampler.model.decode(sampler.model.encode(torch.stack(frames)[:, None]))
    assert (to_media(pixels)[:, 0] - decoded[:, 0]).abs().max() < 1 / 255
    measured = sampler.measures()
    assert "diffusion_loss" in measured and all(np.isfinite(value) for value in measured.values())


def test_noise_tells_frames_of_one_text_apart_and_is_unchanged_without_them():
    same = evaluation_noise(5, "suite", SEEDED, 1, (2, 3))
    assert not torch.equal(same[0], same[1])
    plain = evaluation_noise(901, "counting", [{"prompt": "three red circles"}], 2, (2,))
    # Stored results were made with these numbers.
    assert torch.allclose(plain, torch.tensor([[1.4759, 0.6275], [-2.1383, 0.0669]]), atol=1e-4)


@pytest.fixture
def clip_file(tmp_path):
    """Twelve frames of 48 x 32 pixels at 16 a second, each of one grey, brighter and brighter."""
    path = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 16, (48, 32))
    for frame in range(12):
        writer.write(np.full((32, 48, 3), 20 * frame, np.uint8))
    writer.release()
    return path


def test_a_clip_is_read_at_the_rate_of_the_base_model(clip_file):
    half = load_clip(clip_file, 32, 32, frames=5, frames_per_second=8)
    assert half.shape == (5, 3, 32, 32)
    grey = half.mean((1, 2, 3)) * 255
    assert torch.allclose(grey, torch.tensor([0.0, 40, 80, 120, 160]), atol=6)
    twice = load_clip(clip_file, 32, 32, frames=5, frames_per_second=32)
    assert (twice.mean((1, 2, 3)).diff() > -0.01).all() and len(twice) == 5
    with pytest.raises(ImageFolderError, match="12 frames at 16 a second; 9 at 8 a second are needed"):
        load_clip(clip_file, 32, 32, frames=9, frames_per_second=8)
    clip_file.write_text("no clip")
    with pytest.raises(ImageFolderError, match="clip.mp4 is no readable clip"):
        load_clip(clip_file, 32, 32, frames=2, frames_per_second=8)


def test_a_folder_of_clips_begins_with_the_frames_of_the_prompts(config, clip_file, tmp_path):
    short = config.model_copy(update={"clip": config.clip.model_copy(update={"frames": 5})})
    model = open_base_model(short)
    Image.new("RGB", (48, 32), "black").save(tmp_path / "black.png")
    prompts = PromptSet(write(tmp_path / "p.jsonl", [{**PROMPT, "first_frame": "black.png"}]), {}, model)
    row = {"file_name": "clip.mp4", "text": "it moves left"}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row))
    with pytest.raises(ImageFolderError, match="0 images.*'it moves left' and the first frame 'black.png'"):
        ImageFolder(tmp_path).latents(model, prompts.prompts, 1, batch=1)
    (tmp_path / "metadata.jsonl").write_text(json.dumps({**row, "first_frame": "black.png"}))
    latents = ImageFolder(tmp_path).latents(model, prompts.prompts, 1, batch=1)
    assert latents.shape == (1, *model.latent_shape)
    held = model.held(latents, prompts.embeddings)
    assert torch.equal(held[:, :, :1], prompts.embeddings.tensors[CONDITION])
    assert torch.equal(held[:, :, 1:], latents[:, :, 1:])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([SEEDED[0], PROMPT], "line 2: key 'first_frame' stands in some lines"),
        ([{**PROMPT, "first_frame": -1}], "line 1.*first_frame"),
        ([{**PROMPT, "first_frame": True}], "line 1.*first_frame"),
        ([{**PROMPT, "first_frame": None}], "line 1.*first_frame"),
    ],
)
def test_a_first_frame_that_is_none_is_refused_with_its_line(tmp_path, lines, message):
    with pytest.raises(ConfigError, match=message):
        read(write(tmp_path / "p.jsonl", lines))


def checked(base: str, file: Path, **evaluation) -> None:
    """The plan's checks of one run on prompts from ``file``."""
    task = load_task("counting").model_copy(update={"prompts": str(file), "suites": ["own"]})
    suite = SuiteConfig(prompts=str(file), metrics=["gold"])
    settings = {"images_per_prompt": 1, "batch": 1, "features": "scene_encoder", "kl_noise_level": 0.7}
    settings |= {"held_out_scenes": False, "suites": {"own": suite}} | evaluation
    run = resolve_run(base, "counting", "base", 1, {})
    check_media({run.run: run}, {"counting": task}, EvaluationConfig(**settings))


def test_the_plan_refuses_frames_that_cannot_be_given(tmp_path, monkeypatch, config):
    seeded = write(tmp_path / "p.jsonl", SEEDED)
    with pytest.raises(ConfigError, match=r"p.jsonl gives first frames.*tiny-sd3 cannot be given them"):
        checked("tiny-sd3", seeded)
    monkeypatch.setattr("evaluation.media.load_base_model", lambda *_: config)
    checked("tiny-sd3", seeded, held_out_scenes=True)
    pictures = [{**PROMPT, "first_frame": "a.png"}]
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    checked("tiny-sd3", write(seeded, pictures))
    with pytest.raises(ConfigError, match="held_out_scenes: .*no clip can be drawn that goes on from a pict"):
        checked("tiny-sd3", seeded, held_out_scenes=True)
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(ConfigError, match=r"line 1 \('it moves left'\): key 'first_frame'.*no readable pict"):
        checked("tiny-sd3", seeded)
    (tmp_path / "a.png").unlink()
    with pytest.raises(ConfigError, match=r"line 1 .*key 'first_frame' names .*a.png, which does not exist"):
        checked("tiny-sd3", seeded)
    still = {key: value for key, value in CIRCLE.items() if key != "motion"}
    write(seeded, [{**PROMPT, "include": [still], "first_frame": 3}])
    with pytest.raises(ConfigError, match="is a seed, but the prompt's objects have no 'motion'"):
        checked("tiny-sd3", seeded)


def test_frames_of_another_size_are_not_drawn(config, tmp_path):
    wide = config.model_copy(update={"clip": config.clip.model_copy(update={"width": 48})})
    with pytest.raises(ConfigError, match="clips of 9 x 32 x 48; those that can be drawn are 9 x 32 x 32"):
        data.check_drawn(SEEDED, wide)
    with pytest.raises(ConfigError, match="whose frame has 32 x 32 pixels; the base model makes 48 x 32"):
        PromptSet(write(tmp_path / "p.jsonl", SEEDED), {}, open_base_model(wide))


def test_an_image_model_has_no_frames_to_be_given(tmp_path):
    sd3 = open_base_model(load_base_model("tiny-sd3"))
    with pytest.raises(ConfigError, match="cannot be given the first frames"):
        PromptSet(write(tmp_path / "p.jsonl", SEEDED), {}, sd3)
