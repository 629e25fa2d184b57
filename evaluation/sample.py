"""Seeded evaluation images of a finished run, and what its adapter cost the base model.

The same run id gives the same images and numbers. What lies there already and was made from the same adapter
and settings is kept, so a job that was stopped goes on, and one that scores anew samples nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from base_models import open_base_model
from base_models.base import ADAPTER_FILE, BaseModel, Embeddings
from core.files import replacing, sha256, write_json
from core.finite import check_finite
from core.media import to_pixels
from core.prompts import FIRST_FRAME
from core.prompts import read as read_prompts
from core.seeding import generator
from evaluation import images, measures
from evaluation.configuration import RunEvaluation
from evaluation.contact_sheet import contact_sheet
from evaluation.scores import DIFFUSION_LOSS, KL
from processes.sampling import decode, sample_ode
from runs.configuration import RunConfig
from training.data import encode_scenes
from training.first_frames import embed, has_first_frames, identities
from training.provenance import check_file

SHEET_PROMPTS = 8


def evaluation_noise(seed: int, suite: str, prompts: list[dict], per_prompt: int, shape) -> torch.Tensor:
    """Initial noise (n * per_prompt, ...). It depends on seed, suite and prompt, with its first frame if any,
    never on the method, so that methods are compared on the same noise."""
    names = [[p[key] for key in ("prompt", FIRST_FRAME) if key in p] for p in prompts]
    rngs = [generator("evaluation", seed, suite, *name) for name in names]
    return torch.cat([torch.randn((per_prompt, *shape), generator=rng) for rng in rngs])


def adapters(folder: Path, config: RunConfig) -> dict[int, Path]:
    """Folder of the adapter of every evaluated step; the last is the finished run's."""
    found = {step: folder / "snapshots" / f"step_{step:06d}" for step in config.snapshots}
    return {**found, config.training.iterations: folder / "adapter"}


def planned(config: RunConfig, settings: RunEvaluation) -> list[tuple[int, str]]:
    """Step and suite of every file of images: snapshots on the task's own suite, the last step on all."""
    last = config.training.iterations
    return [(step, settings.own) for step in config.snapshots] + [(last, suite) for suite in settings.suites]


def measures_file(out: Path, step: int) -> Path:
    return out / f"measures_{step:06d}.json"


@dataclass
class Sampler:
    """A base model with what all evaluated steps of a run share: prompts, their embeddings, held-out data."""

    config: RunConfig
    settings: RunEvaluation
    device: str

    @cached_property
    def prompts(self) -> dict[str, list[dict]]:
        return {name: read_prompts(self._file(name)) for name in self.settings.suites}

    def _file(self, suite: str) -> Path:
        """Of its prompts."""
        return Path(self.settings.suites[suite].prompts)

    @cached_property
    def model(self) -> BaseModel:
        return open_base_model(self.config.base_model.in_evaluation(), self.device)

    @cached_property
    def _encoded(self) -> tuple[dict[str, Embeddings], Embeddings | None]:
        model = self.model
        embeddings = {name: embed(model, ps, self._file(name)) for name, ps in self.prompts.items()}
        empty = model.encode_prompts([model.unconditional_prompt]) if model.classifier_free_guidance else None
        model.release_text_encoders()
        return embeddings, empty

    @cached_property
    def held_out(self) -> torch.Tensor:
        """Latents of scenes drawn for the prompts of the own suite."""
        own = self.settings.own
        drawn = encode_scenes(self.model, self.prompts[own], self.settings.batch, "held-out data")
        return self.model.held(drawn, self._encoded[0][own])

    def made_from(self, adapter: Path, suite: str, *more: Any) -> str:
        """Digest of all that decides what an adapter gives on a suite."""
        file, prompts = self._file(suite), self.prompts[suite]
        parts = [sha256(adapter / ADAPTER_FILE), sha256(file), suite]
        parts += identities(file, prompts) if has_first_frames(prompts) else []
        parts += [self.config.base_model.model_dump(mode="json"), self.config.weights, self.settings.batch]
        return hashlib.sha256(json.dumps([*parts, *more], sort_keys=True).encode()).hexdigest()

    def images(self, suite: str) -> Iterator[np.ndarray]:
        """Pixels uint8 (..., H, W, 3) by the loaded adapter, as many of each prompt as the settings say."""
        (embeddings, empty), prompts = self._encoded, self.prompts[suite]
        model, k, batch = self.model, self.settings.images_per_prompt, self.settings.batch
        for rows in torch.arange(len(prompts) * k).split(batch):
            first, last = rows[0].item() // k, rows[-1].item() // k
            own = prompts[first : last + 1]
            initial = evaluation_noise(self.config.seed, suite, own, k, model.latent_shape)
            with model.using():
                latents = sample_ode(
                    model,
                    embeddings[suite][rows // k],
                    initial[rows - first * k].to(model.device),
                    steps=model.config.evaluation_steps,
                    batch=batch,
                    empty=empty,
                )
            pixels = decode(model, latents, batch)
            check_finite({"images": pixels}, f"{self.config.run}, suite {suite}")
            yield from to_pixels(pixels).numpy()

    def measures(self) -> dict[str, float]:
        """KL from the base and diffusion loss of the loaded adapter on one image per prompt of the own suite.

        The random numbers are the same for all runs, so that their numbers differ by the adapters alone.
        """
        (embeddings, empty), model, own = self._encoded, self.model, self.settings.own
        prompts, batch = self.prompts[own], self.settings.batch
        names = [p["prompt"] for p in prompts]
        initial = evaluation_noise(0, "measures", prompts, 1, model.latent_shape).to(model.device)
        found = {
            KL: measures.kl_from_base(
                model,
                embeddings[own],
                initial,
                noise_level=self.settings.kl_noise_level,
                rng=generator("kl from base", *names),
                batch=batch,
                empty=empty,
            )
        }
        if self.settings.held_out_scenes:
            rng = generator("diffusion loss", *names)
            found[DIFFUSION_LOSS] = measures.diffusion_loss(model, embeddings[own], self.held_out, rng, batch)
        return found


def sample_run(folder: Path, config: RunConfig, settings: RunEvaluation, device: str = "cpu") -> None:
    """Fill ``folder/images``: a file and a contact sheet per suite and step, and the measures of each step.

    Raises ``ValueError`` for a best-of-n row, whose images are chosen by their scores.
    """
    if config.best_of:
        raise ValueError(f"{config.run} keeps the best of {config.best_of} images: evaluate it as a whole")
    out, steps = folder / "images", adapters(folder, config)
    sampler, loaded = Sampler(config, settings, device), None
    image_key = (config.seed, settings.images_per_prompt)
    measure_key = ("measures", settings.kl_noise_level, settings.held_out_scenes)

    def load(step: int) -> None:
        nonlocal loaded
        if loaded != step:
            check_file(folder, steps[step] / ADAPTER_FILE)
            sampler.model.load_lora(steps[step])
            loaded = step

    sampled: dict[str, Path] = {}  # by what they were made from: adapters may be equal
    measured: dict[str, dict[str, float]] = {}
    jobs = tqdm(planned(config, settings), desc=f"sampling {config.run}", unit="suite", mininterval=2)
    for step, suite in jobs:
        path, key = images.path_of(out, suite, step), sampler.made_from(steps[step], suite, *image_key)
        anew = images.made_from(path) != key
        if anew:
            if key not in sampled:
                load(step)
            pixels = images.stream(sampled[key]) if key in sampled else sampler.images(suite)
            k = settings.images_per_prompt
            images.write(path, pixels, k=k, suite=suite, step=step, made_from=key)
        sampled[key] = path
        if anew or not images.sheet_of(out, suite, step).exists():
            write_sheet(out, suite, sampler.prompts[suite], step, settings.images_per_prompt)
        if suite == settings.own:
            path, key = measures_file(out, step), sampler.made_from(steps[step], suite, *measure_key)
            if not path.exists() or json.loads(path.read_text())["made_from"] != key:
                if key not in measured:
                    load(step)
                    measured[key] = sampler.measures()
                write_json(path, {"made_from": key, "step": step, "measured": measured[key]})


def write_sheet(out: Path, suite: str, prompts: list[dict], step: int, k: int) -> None:
    """Contact sheet of some prompts of a suite, with all ``k`` images of each."""
    spread = np.unique(np.linspace(0, len(prompts) - 1, SHEET_PROMPTS).astype(int))
    pixels = images.load(images.path_of(out, suite, step), spread, k)
    with replacing(images.sheet_of(out, suite, step)) as temporary:
        contact_sheet(pixels, [prompts[i]["prompt"] for i in spread]).save(temporary, "png")
