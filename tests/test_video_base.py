"""The shipped video base model: real training on the moving world, and its adapters in plain diffusers."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import UniPCMultistepScheduler

import rewards
from base_models import open_base_model
from core.files import to_yaml
from core.media import to_media
from core.prompts import read
from processes.sampling import decode, sample_ode
from runs.config_files import load_base_model
from runs.configuration import load_run
from runs.resolve import resolve_run
from scenes.motion import render_clip
from training.trainer import Trainer

BASE, STEPS = "tiny-cosmos", 8
SHORT = {
    "iterations": 2,
    "prompts_per_iteration": 2,
    "group_size": 4,
    "monitor_every": 1,
    "learning_rate": 3e-3,
    "micro_batch": 16,
}


def trained(folder: Path, task: str, method: str) -> Trainer:
    run = resolve_run(BASE, task, method, 5, {"training": SHORT}).model_dump()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.yaml").write_text(to_yaml(run))
    trainer = Trainer(load_run(folder), folder)
    trainer.run()
    return trainer


@pytest.fixture(scope="module")
def model():
    return open_base_model(load_base_model(BASE, "motion"))


def sampled(model, prompts: list[dict], embeddings) -> torch.Tensor:
    noise = torch.randn(len(prompts), *model.latent_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), model.using(None):
        latents = sample_ode(model, embeddings, noise, steps=STEPS, batch=32)
    return decode(model, latents, 32)


def test_the_base_is_imperfect_as_published_models_are(model):
    prompts = read(Path("resources/prompts/motion_test.jsonl"))
    captions = [p["prompt"] for p in prompts]
    clips = sampled(model, prompts, model.encode_prompts(captions))
    assert clips.shape == (64, 9, 3, 32, 32)
    motion, gold = (rewards.get(name)(clips, captions, prompts).mean().item() for name in ("motion", "gold"))
    assert 0.5 < motion < 0.85 and 0.05 < gold < 0.3


def test_a_clip_keeps_the_frame_it_is_given(model):
    prompts = read(Path("resources/prompts/motion_image_test.jsonl"))[::8]
    frames = to_media(np.stack([render_clip(p, p["first_frame"])[:1] for p in prompts]))
    embeddings = model.conditioned(model.encode_prompts([p["prompt"] for p in prompts]), frames)
    clips = sampled(model, prompts, embeddings)
    assert (clips[:, 0] - model.decode(model.encode(frames))[:, 0]).abs().max() < 0.01  # 8 bits, bf16
    assert (clips[:, 0] - frames[:, 0]).abs().mean() < 0.03  # as well as the autoencoder draws it
    assert (clips[:, -1] - clips[:, 0]).abs().mean() > 0.01


@pytest.mark.parametrize(
    "task, method", [("motion", "gardo"), ("motion_image", "grpo_oracle"), ("motion_shortcut_strong", "grpo")]
)
def test_a_run_on_clips_learns_and_logs(tmp_path, task, method):
    trainer = trained(tmp_path, task, method)
    history = pd.read_parquet(tmp_path / "history.parquet")
    found = {name: values["value"] for name, values in history.groupby("name")}
    assert all(np.isfinite(found[name]).all() for name in ("reward/proxy_mean", "reward/gold.coherence_mean"))
    assert found["train/gradient_norm"].gt(0).all()
    assert all(p.isfinite().all() for p in trainer.adapters.parameters.values())


def test_an_adapter_makes_the_same_clips_in_a_plain_pipeline(tmp_path):
    trainer = trained(tmp_path, "motion", "grpo")
    names: dict = {}
    card = (tmp_path / "adapter" / "README.md").read_text()
    exec(re.search(r"```python\n(.*?)```", card, re.DOTALL)[1], names)
    pipeline = names["pipe"]
    # Of first order and without a corrector, the pipeline's own scheduler is the suite's Euler step.
    pipeline.scheduler = UniPCMultistepScheduler.from_config(
        pipeline.scheduler.config, solver_order=1, disable_corrector=list(range(STEPS))
    )
    prompt = trainer.process.prompts.prompts[7]["prompt"]
    initial = torch.randn(1, *trainer.model.latent_shape, generator=torch.Generator().manual_seed(1))
    arguments = dict(
        prompt=prompt,
        latents=initial,
        num_inference_steps=STEPS,
        guidance_scale=1.0,
        max_sequence_length=trainer.config.base_model.max_sequence_length,
        num_frames=9,
        height=32,
        width=32,
        output_type="pt",
    )
    tuned = torch.as_tensor(pipeline(**arguments).frames)
    pipeline.disable_lora()
    plain = torch.as_tensor(pipeline(**arguments).frames)
    with torch.no_grad():
        for key, parameter in trainer.adapters.parameters.items():
            parameter.copy_(trainer.adapters.average[key])
    embeddings = trainer.process.prompts.embeddings[torch.tensor([7])]
    latents = sample_ode(trainer.model, embeddings, initial, steps=STEPS, batch=1)
    assert (plain - tuned).abs().max() > 1e-3
    assert torch.allclose(tuned, trainer.model.decode(latents), atol=1e-3)
