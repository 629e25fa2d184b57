"""Data for DDRL's diffusion loss: latents with captions, made once per base model and task.

``synthetic`` samples the frozen base model, ``real`` draws (or reads) images of the prompts and encodes
them. Both hold every training prompt of the task the same number of times.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from base_models.base import BaseModel
from processes.sampling import noise, sample_ode
from scenes.renderer import render
from training.files import replacing, sort_metadata
from training.prompts import PromptSet
from training.seeding import generator, seed_of


def synthetic_latents(model: BaseModel, prompts: PromptSet, per_prompt: int, batch: int) -> torch.Tensor:
    """Samples of the frozen base model, (prompts * per_prompt, ...); deterministic."""
    index = torch.arange(len(prompts.prompts)).repeat_interleave(per_prompt)
    rng = generator("synthetic data")
    parts = []
    for rows in tqdm(index.split(batch), desc="sampling data", unit="batch", mininterval=2):
        initial = noise((len(rows), *model.latent_shape), rng, model.device)
        steps = model.config.evaluation_steps
        parts.append(
            sample_ode(
                model, prompts.embeddings[rows], initial, steps=steps, batch=batch, empty=prompts.empty
            )
        )
    return torch.cat(parts)


def encode_scenes(
    model: BaseModel, prompts: list[dict], batch: int, kind: str, per_prompt: int = 1
) -> torch.Tensor:
    """Scenes drawn from the prompts, encoded: (prompts * per_prompt, ...). ``kind`` seeds what is drawn."""
    parts, wanted = [], [(p, k) for p in prompts for k in range(per_prompt)]
    for start in tqdm(range(0, len(wanted), batch), desc="drawing data", unit="batch", mininterval=2):
        scenes = [render(p, seed_of(kind, k)) for p, k in wanted[start : start + batch]]
        pixels = torch.from_numpy(np.stack(scenes)).permute(0, 3, 1, 2).float() / 255
        parts.append(model.encode_images(pixels.to(model.device)))
    return torch.cat(parts)


def real_latents(model: BaseModel, prompts: PromptSet, per_prompt: int, batch: int) -> torch.Tensor:
    """Encoded scenes of the prompts, (prompts * per_prompt, ...); deterministic."""
    return encode_scenes(model, prompts.prompts, batch, "real data", per_prompt)


def save(path: Path, latents: torch.Tensor, prompts: PromptSet, per_prompt: int) -> None:
    captions = [p["prompt"] for p in prompts.prompts]
    metadata = {"captions": json.dumps(captions), "per_prompt": str(per_prompt)}
    with replacing(path) as temporary:
        save_file({"latents": latents.cpu().contiguous()}, temporary, metadata)
        sort_metadata(temporary)


class DataSet:
    """Data latents by prompt index."""

    def __init__(self, path: Path, prompts: PromptSet):
        with safe_open(path, "pt") as stream:
            metadata = stream.metadata()
        captions = [p["prompt"] for p in prompts.prompts]
        if json.loads(metadata["captions"]) != captions:
            raise ValueError(f"{path} was made for other prompts; delete it and run again")
        self.per_prompt = int(metadata["per_prompt"])
        self.latents = load_file(path)["latents"]

    def draw(self, prompt_index: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        """One latent for each prompt index (M,) -> (M, ...)."""
        pick = torch.randint(self.per_prompt, (len(prompt_index),), generator=rng)
        return self.latents[prompt_index * self.per_prompt + pick]
