"""Seeded evaluation images of a finished run: the same run id gives the same images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tqdm import tqdm

from base_models import open_base_model
from evaluation.contact_sheet import contact_sheet
from scenes.prompts import read as read_prompts
from training.configuration import load_run, read_yaml
from training.files import replacing
from training.rollout import decode, sample_ode
from training.seeding import generator

SHEET_PROMPTS = 8


def evaluation_noise(seed: int, suite: str, prompts: list[dict], per_prompt: int, shape) -> torch.Tensor:
    """Initial noise (n * per_prompt, ...). It depends on seed, suite and prompt, never on the method, so that
    methods are compared on the same noise."""
    noises = [
        torch.randn((per_prompt, *shape), generator=generator("evaluation", seed, suite, p["prompt"]))
        for p in prompts
    ]
    return torch.cat(noises)


def adapters(folder: Path, iterations: int, snapshots: list[int]) -> dict[int, Path]:
    """Folder of the adapter of every evaluated step; the last is the finished run's."""
    found = {step: folder / "snapshots" / f"step_{step:06d}" for step in snapshots}
    return {**found, iterations: folder / "adapter"}


def sample_run(folder: Path, settings: Path, out: Path, device: str = "cpu") -> None:
    """Write ``out/<suite>_<step>.safetensors`` (uint8 N, H, W, 3) and contact sheets of the last step.

    Snapshots are sampled on the task's own suite only, the finished adapter on all its suites.
    """
    config, settings = load_run(folder), read_yaml(settings)
    model = open_base_model(config.base_model, device)
    suites, batch, per_prompt = (
        settings["tasks"][config.task],
        settings["batch"],
        settings["images_per_prompt"],
    )
    steps = adapters(folder, config.training.iterations, config.snapshots)
    last = max(steps)
    jobs = [(step, suite) for step in steps for suite in (suites if step == last else suites[:1])]
    prompts_of = {suite: read_prompts(Path(settings["suites"][suite])) for suite in suites}
    embeddings_of = {s: model.encode_prompts([p["prompt"] for p in ps]) for s, ps in prompts_of.items()}
    empty = model.encode_prompts([""]) if model.classifier_free_guidance else None
    model.release_text_encoders()
    loaded = None
    with replacing(out) as temporary:
        temporary.mkdir()
        for step, suite in tqdm(jobs, desc=f"sampling {config.run}", unit="suite", mininterval=2):
            if loaded != step:
                model.load_lora(steps[step])
                loaded = step
            prompts = prompts_of[suite]
            index = torch.arange(len(prompts)).repeat_interleave(per_prompt)
            initial = evaluation_noise(config.seed, suite, prompts, per_prompt, model.latent_shape)
            with model.using():
                latents = sample_ode(
                    model,
                    embeddings_of[suite][index],
                    initial.to(model.device),
                    steps=model.config.evaluation_steps,
                    batch=batch,
                    empty=empty,
                )
            pixels = (
                (decode(model, latents, batch) * 255).round().byte().permute(0, 2, 3, 1).cpu().contiguous()
            )
            save_file({"images": pixels}, temporary / f"{suite}_{step:06d}.safetensors")
            if step == last:
                rows = pixels.numpy().reshape(len(prompts), per_prompt, *pixels.shape[1:])
                spread = np.linspace(0, len(prompts) - 1, SHEET_PROMPTS).astype(int)
                contact_sheet(rows[spread], [prompts[i]["prompt"] for i in spread]).save(
                    temporary / f"{suite}.png"
                )
