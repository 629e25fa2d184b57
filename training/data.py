"""Data for DDRL's diffusion loss: latents with captions, made once per base model and task.

``synthetic`` samples the frozen base model, ``real`` draws (or reads) images of the prompts and encodes
them. Both hold every training prompt of the task the same number of times.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tqdm import tqdm

from base_models.base import BaseModel
from base_models.configuration import BaseModelConfig
from core.files import read_tensors, replacing, sort_metadata, write_text
from core.media import to_media
from core.prompts import FIRST_FRAME
from core.seeding import generator, seed_of
from core.settings import ConfigError
from core.tables import damaged
from processes.sampling import noise, sample_ode
from scenes.motion import FRAMES, render_clip
from scenes.renderer import render
from scenes.vocabulary import IMAGE_SIZE
from training.first_frames import moves
from training.prompts import PromptSet
from training.ranks import Ranks

Wanted = Callable[[int], bool]  # whether this process makes the part of that number
Parts = Iterator[tuple[int, torch.Tensor]]  # number of a part, and its latents


def synthetic_parts(
    model: BaseModel, prompts: PromptSet, per_prompt: int, batch: int, wanted: Wanted = lambda _: True
) -> Parts:
    """Samples of the frozen base model, ``batch`` at a time; deterministic."""
    index = torch.arange(len(prompts.prompts)).repeat_interleave(per_prompt)
    rng = generator("synthetic data")
    for number, rows in enumerate(index.split(batch)):
        # Drawn for every part, so that a part's noise does not depend on who makes which.
        initial = noise((len(rows), *model.latent_shape), rng, torch.device("cpu"))
        if wanted(number):
            yield (
                number,
                sample_ode(
                    model,
                    prompts.embeddings[rows],
                    initial.to(model.device),
                    steps=model.config.evaluation_steps,
                    batch=batch,
                    empty=prompts.empty,
                ),
            )


def synthetic_latents(model: BaseModel, prompts: PromptSet, per_prompt: int, batch: int) -> torch.Tensor:
    """All parts, (prompts * per_prompt, ...)."""
    return torch.cat([latents for _, latents in synthetic_parts(model, prompts, per_prompt, batch)])


def save_in_parts(
    path: Path,
    parts: Callable[[Wanted], Parts],
    count: int,
    identity: str,
    prompts: PromptSet,
    per_prompt: int,
    ranks: Ranks,
) -> None:
    """Write ``count`` parts, each process its own, then ``path`` from all of them.

    Parts lie beside ``path`` until then; a job that is started again makes those that are missing.

    Args:
        identity: of everything the latents depend on. Parts of another one are dropped.
    """
    folder = path.with_name(f".{path.name}.parts")
    if ranks.main:
        mark = folder / "identity"
        if not mark.exists() or mark.read_text() != identity:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            write_text(mark, identity)
    ranks.wait()

    def file(number: int) -> Path:
        return folder / f"{number:06d}.safetensors"

    own = [n for n in range(ranks.index, count, ranks.count) if not file(n).exists()]
    with tqdm(desc="making data", total=len(own), unit="part", mininterval=2, disable=not ranks.main) as bar:
        for number, latents in parts(set(own).__contains__):
            with replacing(file(number)) as temporary:
                save_file({"latents": latents.cpu().contiguous()}, temporary)
            bar.update()
    ranks.wait()
    if ranks.main:
        latents = torch.cat([read_tensors(file(number))["latents"] for number in range(count)])
        save(path, latents, prompts, per_prompt)
        shutil.rmtree(folder)
    ranks.wait()


def encode_scenes(
    model: BaseModel, prompts: list[dict], batch: int, kind: str, per_prompt: int = 1
) -> torch.Tensor:
    """Scenes drawn from the prompts, encoded: (prompts * per_prompt, ...).

    ``kind`` seeds what is drawn. A clip whose prompt has a first frame goes on from it: it is drawn with the
    frame's seed, and so the same every time. Raises ``ValueError`` for what the embedded world does not draw.
    """
    draw = _clip if model.medium == "clip" else render
    if model.medium == "clip":
        check_drawn(prompts, model.config)
    parts, wanted = [], [(p, k) for p in prompts for k in range(per_prompt)]
    for start in tqdm(range(0, len(wanted), batch), desc="drawing data", unit="batch", mininterval=2):
        scenes = [draw(p, seed_of(kind, k)) for p, k in wanted[start : start + batch]]
        parts.append(model.encode(to_media(np.stack(scenes)).to(model.device)))
    return torch.cat(parts)


def _clip(prompt: dict, seed: int) -> np.ndarray:
    return render_clip(prompt, prompt.get(FIRST_FRAME, seed))


def check_drawn(prompts: list[dict], config: BaseModelConfig) -> None:
    """Raise ``ConfigError`` where the embedded world draws no clips of the prompts that ``config`` makes."""
    for prompt in prompts:
        if not moves(prompt):
            raise ConfigError(f"{prompt['prompt']!r}: no clip can be drawn, its objects have no 'motion'")
        if isinstance(prompt.get(FIRST_FRAME), str):
            raise ConfigError(f"{prompt['prompt']!r}: no clip can be drawn that goes on from a picture")
    made = (config.clip.frames, config.image_size, config.clip.width)
    if made != (drawn := (FRAMES, IMAGE_SIZE, IMAGE_SIZE)):
        sizes = " x ".join(map(str, made)), " x ".join(map(str, drawn))
        raise ConfigError(f"{config.label} makes clips of {sizes[0]}; those that can be drawn are {sizes[1]}")


def real_latents(model: BaseModel, prompts: PromptSet, per_prompt: int, batch: int) -> torch.Tensor:
    """Encoded scenes of the prompts, (prompts * per_prompt, ...); deterministic."""
    return encode_scenes(model, prompts.prompts, batch, "real data", per_prompt)


def save(
    path: Path, latents: torch.Tensor, prompts: PromptSet, per_prompt: int, model: BaseModel | None = None
) -> None:
    """``model``: of real data, whose first frames become exactly those that prompts give."""
    if model:
        rows = torch.arange(len(prompts.prompts)).repeat_interleave(per_prompt)
        latents = model.held(latents, prompts.embeddings[rows])
    latents = latents.cpu().contiguous()
    metadata = {
        "captions": json.dumps(prompts.identities),
        "per_prompt": str(per_prompt),
        "sha256": _digest(latents),
    }
    with replacing(path) as temporary:
        save_file({"latents": latents}, temporary, metadata)
        sort_metadata(temporary)


def _digest(latents: torch.Tensor) -> str:
    return hashlib.sha256(latents.contiguous().numpy().tobytes()).hexdigest()


class DataSet:
    """Data latents by prompt index."""

    def __init__(self, path: Path, prompts: PromptSet):
        try:
            with safe_open(path, "pt") as stream:
                metadata = stream.metadata() or {}
        except (SafetensorError, OSError) as error:
            raise damaged(path, error) from None
        if json.loads(metadata.get("captions", "null")) != prompts.identities:
            raise ValueError(f"{path} was made for other prompts; delete it and run again")
        self.per_prompt = int(metadata["per_prompt"])
        self.latents = read_tensors(path)["latents"]
        if metadata.get("sha256") != _digest(self.latents):
            raise damaged(path, "its latents have another checksum")

    def draw(self, prompt_index: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        """One latent for each prompt index (M,) -> (M, ...)."""
        pick = torch.randint(self.per_prompt, (len(prompt_index),), generator=rng)
        return self.latents[prompt_index * self.per_prompt + pick]
