"""Real images or clips with captions for DDRL: a folder in the format of Hugging Face's ``imagefolder``.

``metadata.jsonl`` holds one JSON object per line with ``file_name`` (relative to the folder) and ``text``,
the caption. The rollout's prompt is the caption of its data: every training prompt needs its own files.
Prompts with a first frame need clips that go on from it: such a line names it under ``first_frame``, as the
prompt does.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from base_models.base import BaseModel
from base_models.configuration import BaseModelConfig
from core.media import to_media
from core.prompts import FIRST_FRAME

METADATA = "metadata.jsonl"
Key = tuple[str, str | int | None]  # a caption, and the first frame where there is one


class ImageFolderError(ValueError):
    """A folder that cannot serve; the message names the file."""


class ImageFolder:
    """Files by caption, in the order of ``metadata.jsonl``. Raises ``ImageFolderError``."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.files: dict[Key, list[Path]] = {}
        metadata = self.folder / METADATA
        if not metadata.is_file():
            raise ImageFolderError(f"{metadata} does not exist; it names the images and their captions")
        try:
            lines = metadata.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise ImageFolderError(f"{metadata} is no text in UTF-8 ({error})") from None
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                name, text = row["file_name"], row["text"]
                if not (isinstance(name, str) and isinstance(text, str)):
                    raise TypeError
                key = text, row.get(FIRST_FRAME)
                known = self.files.setdefault(key, [])
            except (ValueError, KeyError, TypeError):
                raise ImageFolderError(
                    f"{metadata}, line {number}: no JSON object with the texts 'file_name' and 'text'"
                ) from None
            if not (self.folder / name).is_file():
                raise ImageFolderError(f"{metadata}, line {number}: {self.folder / name} does not exist")
            known.append(self.folder / name)
        if not self.files:
            raise ImageFolderError(f"{metadata} names no image")

    def wanted(self, prompts: list[dict], per_prompt: int) -> list[Path]:
        """The first ``per_prompt`` files of each prompt, prompt after prompt."""
        keys = [(prompt["prompt"], prompt.get(FIRST_FRAME)) for prompt in prompts]
        for text, frame in keys:
            found = len(self.files.get((text, frame), []))
            if found < per_prompt:
                beginning = "" if frame is None else f" and the first frame {frame!r}"
                raise ImageFolderError(
                    f"{self.folder / METADATA}: {found} images with the caption {text!r}{beginning}, "
                    f"{per_prompt} are needed for each prompt"
                )
        return [path for key in keys for path in self.files[key][:per_prompt]]

    def latents(self, model: BaseModel, prompts: list[dict], per_prompt: int, batch: int) -> torch.Tensor:
        """Encoded images or clips, (prompts * per_prompt, ...), each cropped to the model's size."""
        files = self.wanted(prompts, per_prompt)
        parts = []
        starts = range(0, len(files), batch)
        for start in tqdm(starts, desc="encoding data", unit="batch", mininterval=2):
            media = [load(path, model.config) for path in files[start : start + batch]]
            parts.append(model.encode(torch.stack(media).to(model.device)).cpu())
        return torch.cat(parts)


def load(path: Path, config: BaseModelConfig) -> torch.Tensor:
    """A file as a base model would make it: an image (3, H, W) or a clip (F, 3, H, W) in [0, 1]."""
    if config.clip is None:
        return load_square(path, config.image_size)
    clip = config.clip
    return load_clip(path, clip.width, config.image_size, clip.frames, clip.frames_per_second)


def load_square(path: Path, side: int) -> torch.Tensor:
    """An image as float (3, side, side) in [0, 1]: the largest centred square, scaled (Lanczos)."""
    return load_picture(path, side, side)


def load_picture(path: Path, width: int, height: int) -> torch.Tensor:
    """An image as float (3, height, width) in [0, 1]: its largest centred part of that shape, scaled
    (Lanczos). Raises ``ImageFolderError`` for a file that is none."""
    try:
        with Image.open(path) as opened:
            upright = ImageOps.exif_transpose(opened).convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError) as error:  # the last one for a broken PNG
        raise ImageFolderError(f"{path} is no readable image ({error})") from None
    return to_media(_fitted(upright, width, height))


def _fitted(picture: Image.Image, width: int, height: int) -> np.ndarray:
    return np.array(ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS))


def load_clip(path: Path, width: int, height: int, frames: int, frames_per_second: float) -> torch.Tensor:
    """A clip's beginning as float (frames, 3, height, width) in [0, 1], at that rate, each frame as
    ``load_picture`` has it. Raises ``ImageFolderError`` for a file that is none, or too short."""
    import cv2

    video = cv2.VideoCapture(str(path))
    rate = video.get(cv2.CAP_PROP_FPS)
    found: list[np.ndarray] = []
    read = 0  # frames of the file
    if video.isOpened() and rate > 0:
        while len(found) < frames:
            more, pixels = video.read()
            if not more:
                break
            # The file's frame that is nearest to each moment, some of them twice where its rate is lower.
            while len(found) < frames and round(len(found) * rate / frames_per_second) == read:
                picture = Image.fromarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
                found.append(_fitted(picture, width, height))
            read += 1
    video.release()
    if not read:
        raise ImageFolderError(f"{path} is no readable clip")
    if len(found) < frames:
        raise ImageFolderError(
            f"{path} has {read} frames at {rate:g} a second; {frames} at {frames_per_second:g} a second are "
            f"needed"
        )
    return to_media(np.stack(found))
