"""The adapter over Cosmos-Predict2.5, on a small checkpoint of its classes, beside its own pipeline.

The pipeline steps by UniPC; of first order and without a corrector that is the suite's deterministic sampler.
"""

import gc
import weakref
from pathlib import Path

import pytest
import torch
import yaml
from diffusers import Cosmos2_5_PredictBasePipeline, UniPCMultistepScheduler

from base_models import get_class, open_base_model
from base_models.base import ADAPTER_FILE, POLICY
from base_models.configuration import BaseModelConfig
from base_models.cosmos import CONDITION, Unchecked
from core.media import medium_of
from core.settings import ConfigError
from processes.sampling import sample_ode
from runs.config_files import load_base_model
from tests.small_pipelines import save_cosmos
from tests.test_base_models import spread

PROMPTS = ["a red circle moves to the right", "a blue square bounces"]
STEPS, SIDE, WIDTH, FRAMES, GUIDANCE = 3, 32, 48, 9, 2.0
SIGMA = torch.tensor([0.5, 0.25])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cosmos") / "small"
    save_cosmos(folder)
    return folder


@pytest.fixture(scope="module")
def settings(checkpoint):
    def of(name: str = "cosmos-predict2.5-2b", **changes) -> BaseModelConfig:
        value = yaml.safe_load(Path(f"config/base_models/{name}.yaml").read_text())
        value |= {"path": str(checkpoint), "needs_gpu": False, "dtype": "float32", "image_size": SIDE}
        value |= {"max_sequence_length": 24, "guidance_scale": GUIDANCE, "gradient_checkpointing": False}
        value["clip"] |= {"frames": FRAMES, "width": WIDTH, "negative_prompt": "a blur"}
        return BaseModelConfig.model_validate(value | changes)

    return of


@pytest.fixture
def model(settings):
    return open_base_model(settings())


@pytest.fixture
def plain(checkpoint):
    pipeline = Cosmos2_5_PredictBasePipeline.from_pretrained(checkpoint, safety_checker=Unchecked())
    first_order = {"solver_order": 1, "disable_corrector": list(range(STEPS))}
    pipeline.scheduler = UniPCMultistepScheduler.from_config(pipeline.scheduler.config, **first_order)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def initial(model, count: int = len(PROMPTS)) -> torch.Tensor:
    return torch.randn(count, *model.latent_shape, generator=torch.Generator().manual_seed(0))


def ours(model, prompts: list[str] = PROMPTS, given: torch.Tensor | None = None) -> torch.Tensor:
    """Latents of the suite's own sampler."""
    empty = model.encode_prompts([model.unconditional_prompt])
    embeddings = model.encode_prompts(prompts)
    if given is not None:
        embeddings = model.conditioned(embeddings, given)
    return sample_ode(model, embeddings, initial(model, len(prompts)), steps=STEPS, batch=2, empty=empty)


def theirs(pipeline, model, prompts: list[str] = PROMPTS, **given) -> torch.Tensor:
    return pipeline(
        prompt=prompts,
        negative_prompt=["a blur"] * len(prompts),
        latents=initial(model, len(prompts)),
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        max_sequence_length=24,
        height=SIDE,
        width=WIDTH,
        num_frames=FRAMES,
        output_type="latent",
        **given,
    ).frames


def test_a_saved_adapter_makes_the_same_clips_in_a_plain_pipeline(model, plain, settings, tmp_path):
    before = theirs(plain, model)
    assert model.latent_shape == (16, 3, 8, 12) and torch.allclose(ours(model), before, atol=1e-4)
    model.add_adapter()
    assert torch.allclose(ours(model), before, atol=1e-4)  # B = 0 changes nothing
    model.save_lora(tmp_path, spread(model, 0.3))
    trained = ours(model)
    plain.load_lora_weights(str(tmp_path))
    assert torch.allclose(theirs(plain, model), trained, atol=1e-3)
    assert (trained - before).abs().mean() > 1e-2
    again = open_base_model(settings())
    again.load_lora(tmp_path)
    assert torch.allclose(ours(again), trained, atol=1e-4)


def test_clips_are_those_of_the_pipeline(model, plain):
    latents = theirs(plain, model)
    clips = model.decode(latents)
    assert clips.shape == (2, FRAMES, 3, SIDE, WIDTH) and medium_of(clips) == get_class("cosmos").medium
    plain.scheduler = UniPCMultistepScheduler.from_config(plain.scheduler.config)
    shown = plain.vae.decode(latents / plain.latents_std + plain.latents_mean, return_dict=False)[0]
    assert torch.allclose(clips, (shown / 2 + 0.5).clamp(0, 1).movedim(1, 2), atol=1e-5)
    again = model.encode(clips)
    wanted = (
        plain.vae.encode(clips.movedim(2, 1) * 2 - 1).latent_dist.mode() - plain.latents_mean
    ) * plain.latents_std
    assert again.shape == (2, *model.latent_shape) and torch.allclose(again, wanted, atol=1e-4)


def test_image_to_video_keeps_its_frame_and_follows_the_pipeline(model, plain):
    frame = torch.rand(1, 1, 3, SIDE, WIDTH, generator=torch.Generator().manual_seed(5))
    latents = ours(model, PROMPTS[:1], frame)
    condition = model.encode(frame)
    assert torch.allclose(latents[:, :, :1], condition, atol=1e-6)  # exactly, up to the last step's rounding
    video = frame.movedim(2, 1).repeat(1, 1, FRAMES, 1, 1) * 2 - 1
    theirs_ = theirs(plain, model, PROMPTS[:1], video=video, num_latent_conditional_frames=1)
    assert torch.allclose(latents[:, :, 1:], theirs_[:, :, 1:], atol=1e-3)
    assert (latents - ours(model, PROMPTS[:1]))[:, :, 1:].abs().mean() > 1e-2  # the frame is seen
    whole = torch.cat([frame, torch.rand(1, FRAMES - 1, 3, SIDE, WIDTH)], dim=1)
    assert torch.allclose(model.encode(whole)[:, :, :1], condition, atol=1e-4)  # the autoencoder is causal


def test_a_given_frame_has_no_part_in_the_ratio(model):
    """Its velocity does not depend on the policy, so trained steps see the same mean there."""
    model.add_adapter()
    spread(model, 0.3)
    frame = torch.rand(2, 1, 3, SIDE, WIDTH)
    embeddings = model.conditioned(model.encode_prompts(PROMPTS), frame)
    assert embeddings.tensors[CONDITION].shape == (2, 16, 1, 8, 12) and len(embeddings) == 2
    empty, x = model.encode_prompts([""]), initial(model)
    with torch.no_grad(), model.using(POLICY):
        policy = model.velocity(x, SIGMA, embeddings, empty)
    with torch.no_grad(), model.using(None):
        base = model.velocity(x, SIGMA, embeddings, empty)
    assert torch.equal(policy[:, :, :1], base[:, :, :1]) and (policy - base).abs().max() > 1e-3


def test_stochastic_rollouts_are_finite_on_karras_sigmas(model):
    sigmas = model.sigmas(8)
    assert torch.allclose(sigmas[:3], torch.tensor([0.995, 0.989, 0.973]), atol=1e-3) and sigmas[-1] == 0
    assert (sigmas.diff() < 0).all() and sigmas[0] < 1
    plainer = model.pipeline.scheduler.config | {"use_karras_sigmas": False}
    model.pipeline.scheduler = UniPCMultistepScheduler.from_config(plainer)
    assert model.sigmas(8)[0] == 1  # 1 - 1e-6 would make the first step's noise 700 times too strong


def test_prompts_are_stored_behind_the_projection_and_training_goes_on_without_encoders(model, tmp_path):
    model.add_adapter()
    prompts = model.encode_prompts(PROMPTS)
    assert prompts.tensors["encoder_hidden_states"].shape == (2, 24, 48)
    watched = weakref.ref(model.pipeline.text_encoder)
    model.release_text_encoders()
    gc.collect()
    assert watched() is None
    with pytest.raises(RuntimeError, match="released"):
        model.encode_prompts(PROMPTS)
    assert model.predict(initial(model), SIGMA, prompts).isfinite().all()
    model.save_lora(tmp_path, spread(model))
    model.load_lora(tmp_path)
    assert (tmp_path / ADAPTER_FILE).exists()


@pytest.mark.parametrize("name", ["cosmos-predict2.5-2b", "cosmos-predict2.5-14b"])
def test_every_lora_target_of_the_config_exists(name, settings):
    model = open_base_model(settings(name))
    model.add_adapter()
    adapted = {n for n, m in model.transformer.named_modules() if hasattr(m, "lora_A")}
    for target in model.config.lora.target_modules:
        assert any(n.endswith(f".{target}") for n in adapted), target


def test_the_merged_copy_and_checkpointing_change_no_gradient(settings):
    found = []
    for changes in ({}, {"merged_dtype": "bfloat16"}, {"gradient_checkpointing": True}):
        torch.manual_seed(1)
        model = open_base_model(settings(**changes))
        model.merged_dtype = torch.float32 if changes.get("merged_dtype") else None
        model.add_adapter()
        spread(model, 0.3)
        embeddings, empty = model.encode_prompts(PROMPTS), model.encode_prompts([""])
        with model.using(POLICY):
            model.velocity(initial(model), SIGMA, embeddings, empty).square().mean().backward()
        found.append(torch.cat([p.grad.flatten() for p in model.adapter_parameters().values()]))
    assert found[0].abs().max() > 0
    for other in found[1:]:
        assert torch.allclose(found[0], other, rtol=1e-3, atol=1e-6)


def test_what_is_missing_or_wrong_is_said_before_it_is_opened(settings):
    without = settings().model_copy(update={"clip": None})
    assert "key 'clip' is missing" in " ".join(get_class("cosmos").missing(without, gpu=False))
    real = load_base_model("cosmos-predict2.5-2b")
    lines = " ".join(get_class("cosmos").missing(real, gpu=True))
    assert "pin its commit in the key 'revision'" in lines and "torchvision" in lines
    odd = settings()
    with pytest.raises(ValueError, match="'clip.frames' is 8; valid: 1 more than a multiple of 4"):
        open_base_model(odd.model_copy(update={"clip": odd.clip.model_copy(update={"frames": 8})}))
    with pytest.raises((ValueError, ConfigError), match="width"):
        settings(clip={"frames": 9, "width": 30, "frames_per_second": 8})
