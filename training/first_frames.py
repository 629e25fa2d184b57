"""Image-to-video: prompts embedded together with the first frames of their clips.

``first_frame`` of a prompt (``core.prompts``) is a picture beside the prompt file, or the seed with which the
embedded world draws the clip that the frame begins.
"""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from base_models.base import BaseModel, Embeddings
from core.files import sha256
from core.media import to_media
from core.prompts import FIRST_FRAME
from core.settings import ConfigError
from scenes.motion import render_clip
from training.image_folder import ImageFolderError, load_picture


def has_first_frames(prompts: list[dict]) -> bool:
    """Whether a set of prompts is one of image-to-video: all have a first frame, or none (``read``)."""
    return FIRST_FRAME in prompts[0]


def moves(prompt: dict) -> bool:
    """Whether the embedded world draws the prompt as a clip."""
    objects = prompt.get("include") or [{}]
    return all("motion" in item for item in objects)


def check_first_frames(path: Path, prompts: list[dict]) -> None:
    """Raise ``ConfigError``, naming file, line and key, for a frame that cannot be had."""
    for number, prompt in enumerate(prompts, start=1):
        frame = prompt.get(FIRST_FRAME)
        where = f"{path}, line {number} ({prompt['prompt']!r}): key {FIRST_FRAME!r}"
        if isinstance(frame, int) and not moves(prompt):
            raise ConfigError(f"{where} is a seed, but the prompt's objects have no 'motion' to draw")
        if not isinstance(frame, str):
            continue
        picture = Path(path).parent / frame
        if not picture.is_file():
            raise ConfigError(f"{where} names {picture}, which does not exist")
        try:
            with Image.open(picture) as opened:
                opened.draft("RGB", (64, 64))  # of a JPEG it is enough to decode it coarsely
                opened.load()
        except (OSError, SyntaxError) as error:
            raise ConfigError(f"{where} names {picture}, which is no readable picture ({error})") from None


def identities(path: Path, prompts: list[dict]) -> list:
    """What decides the embeddings of a prompt file, prompt by prompt: the text, with its first frame."""
    if not has_first_frames(prompts):
        return [prompt["prompt"] for prompt in prompts]
    frames = [prompt[FIRST_FRAME] for prompt in prompts]
    marks = [sha256(Path(path).parent / f) if isinstance(f, str) else f for f in frames]
    return [[prompt["prompt"], mark] for prompt, mark in zip(prompts, marks, strict=True)]


def first_frame(path: Path, prompt: dict, width: int, height: int) -> torch.Tensor:
    """The first frame of one prompt of a file, float (3, height, width) in [0, 1].

    Raises ``ValueError`` for a drawn one of another size, and for a picture that cannot be read.
    """
    frame = prompt[FIRST_FRAME]
    if isinstance(frame, str):
        try:
            return load_picture(Path(path).parent / frame, width, height)
        except ImageFolderError as error:
            raise ConfigError(f"{path}, prompt {prompt['prompt']!r}: key {FIRST_FRAME!r}: {error}") from None
    drawn = to_media(render_clip(prompt, frame)[0])
    if drawn.shape != (3, height, width):
        raise ConfigError(
            f"{path}, prompt {prompt['prompt']!r}: key {FIRST_FRAME!r} is a seed, whose frame has "
            f"{drawn.shape[2]} x {drawn.shape[1]} pixels; the base model makes {width} x {height}"
        )
    return drawn


def embed(model: BaseModel, prompts: list[dict], path: Path) -> Embeddings:
    """Embeddings of prompts of a file, with their first frames where they have them."""
    embeddings = model.encode_prompts([prompt["prompt"] for prompt in prompts])
    if not has_first_frames(prompts):
        return embeddings
    if not model.takes_first_frames:
        raise ConfigError(f"{path}: {model.config.label} cannot be given the first frames of its prompts")
    height, width = model.config.image_size, model.config.clip.width
    frames = torch.stack([first_frame(path, prompt, width, height) for prompt in prompts])
    return model.conditioned(embeddings, frames[:, None].to(model.device))
