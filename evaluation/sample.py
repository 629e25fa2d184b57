"""Seeded evaluation images of a finished run, and what its adapter cost the base model.

The same run id gives the same images and numbers.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file
from tqdm import tqdm

from base_models import open_base_model
from base_models.base import BaseModel, Embeddings
from evaluation import measures
from evaluation.contact_sheet import contact_sheet
from scenes.prompts import read as read_prompts
from training.configuration import load_run, read_yaml
from training.data import encode_scenes
from training.files import replacing
from training.rollout import decode, sample_ode
from training.seeding import generator

SHEET_PROMPTS = 8
MEASURES = "measures.parquet"


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


def measure(
    model: BaseModel, prompts: list[dict], embeddings: Embeddings, settings: dict, empty: Embeddings | None
) -> dict[str, float]:
    """KL from the base and diffusion loss of the loaded adapter on one image per test prompt of the task.

    The random numbers are the same for all runs, so that their numbers differ by the adapters alone.
    """
    names = [p["prompt"] for p in prompts]
    initial = evaluation_noise(0, "measures", prompts, 1, model.latent_shape).to(model.device)
    found = {
        measures.KL: measures.kl_from_base(
            model,
            embeddings,
            initial,
            noise_level=settings["kl_noise_level"],
            rng=generator("kl from base", *names),
            batch=settings["batch"],
            empty=empty,
        )
    }
    if settings["held_out_scenes"]:
        data = encode_scenes(model, prompts, settings["batch"], "held-out data")
        rng = generator("diffusion loss", *names)
        found[measures.DIFFUSION_LOSS] = measures.diffusion_loss(
            model, embeddings, data, rng, settings["batch"]
        )
    return found


def to_bytes(images: torch.Tensor) -> torch.Tensor:
    """Float (N, 3, H, W) in [0, 1] -> uint8 (N, H, W, 3) on the CPU."""
    return (images * 255).round().byte().permute(0, 2, 3, 1).cpu().contiguous()


def sample_run(folder: Path, settings: Path, out: Path, device: str = "cpu") -> None:
    """Write ``out/<suite>_<step>.safetensors`` (uint8 N, H, W, 3), contact sheets of the last step, and
    ``out/measures.parquet`` (step, metric, value, n_images).

    Snapshots are sampled on the task's own suite only, the finished adapter on all its suites.
    """
    config, settings = load_run(folder), read_yaml(settings)
    model = open_base_model(config.base_model, device)
    suites, batch, per_prompt = (
        settings["suites"],
        settings["batch"],
        settings["images_per_prompt"],
    )
    steps = adapters(folder, config.training.iterations, config.snapshots)
    last = max(steps)
    jobs = [(step, suite) for step in steps for suite in (suites if step == last else suites[:1])]
    prompts_of = {suite: read_prompts(Path(settings["prompts"][suite])) for suite in suites}
    embeddings_of = {s: model.encode_prompts([p["prompt"] for p in ps]) for s, ps in prompts_of.items()}
    empty = model.encode_prompts([""]) if model.classifier_free_guidance else None
    model.release_text_encoders()
    loaded, measured = None, []
    with replacing(out) as temporary:
        temporary.mkdir()
        for step, suite in tqdm(jobs, desc=f"sampling {config.run}", unit="suite", mininterval=2):
            if loaded != step:
                model.load_lora(steps[step])
                loaded = step
            prompts, embeddings = prompts_of[suite], embeddings_of[suite]
            if suite == suites[0]:
                found = measure(model, prompts, embeddings, settings, empty)
                measured += [(step, name, value, len(prompts)) for name, value in found.items()]
            index = torch.arange(len(prompts)).repeat_interleave(per_prompt)
            initial = evaluation_noise(config.seed, suite, prompts, per_prompt, model.latent_shape)
            with model.using():
                latents = sample_ode(
                    model,
                    embeddings[index],
                    initial.to(model.device),
                    steps=model.config.evaluation_steps,
                    batch=batch,
                    empty=empty,
                )
            pixels = torch.cat([to_bytes(decode(model, z, batch)) for z in latents.split(batch)])
            save_file({"images": pixels}, temporary / f"{suite}_{step:06d}.safetensors")
            if step == last:
                rows = pixels.numpy().reshape(len(prompts), per_prompt, *pixels.shape[1:])
                spread = np.linspace(0, len(prompts) - 1, SHEET_PROMPTS).astype(int)
                contact_sheet(rows[spread], [prompts[i]["prompt"] for i in spread]).save(
                    temporary / f"{suite}.png"
                )
        table = pd.DataFrame(measured, columns=["step", "metric", "value", "n_images"])
        table.to_parquet(temporary / MEASURES, index=False)
