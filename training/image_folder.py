"""Real images with captions for DDRL: a folder in the format of Hugging Face's ``imagefolder``.

``metadata.jsonl`` holds one JSON object per line with ``file_name`` (relative to the folder) and ``text``,
the caption. The rollout's prompt is the caption of its data: every training prompt needs its own images.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from base_models.base import BaseModel

METADATA = "metadata.jsonl"


class ImageFolderError(ValueError):
    """A folder that cannot serve; the message names the file."""


class ImageFolder:
    """Image files by caption, in the order of ``metadata.jsonl``. Raises ``ImageFolderError``."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.files: dict[str, list[Path]] = {}
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
            except (ValueError, KeyError, TypeError):
                raise ImageFolderError(
                    f"{metadata}, line {number}: no JSON object with the texts 'file_name' and 'text'"
                ) from None
            if not (self.folder / name).is_file():
                raise ImageFolderError(f"{metadata}, line {number}: {self.folder / name} does not exist")
            self.files.setdefault(text, []).append(self.folder / name)
        if not self.files:
            raise ImageFolderError(f"{metadata} names no image")

    def wanted(self, prompts: list[dict], per_prompt: int) -> list[Path]:
        """The first ``per_prompt`` images of each prompt, prompt after prompt."""
        for prompt in prompts:
            found = len(self.files.get(prompt["prompt"], []))
            if found < per_prompt:
                raise ImageFolderError(
                    f"{self.folder / METADATA}: {found} images with the caption {prompt['prompt']!r}, "
                    f"{per_prompt} are needed for each prompt"
                )
        return [path for prompt in prompts for path in self.files[prompt["prompt"]][:per_prompt]]

    def latents(self, model: BaseModel, prompts: list[dict], per_prompt: int, batch: int) -> torch.Tensor:
        """Encoded images, (prompts * per_prompt, ...), each cropped to the model's square."""
        files = self.wanted(prompts, per_prompt)
        parts = []
        starts = range(0, len(files), batch)
        for start in tqdm(starts, desc="encoding images", unit="batch", mininterval=2):
            images = [load_square(path, model.config.image_size) for path in files[start : start + batch]]
            parts.append(model.encode(torch.stack(images).to(model.device)).cpu())
        return torch.cat(parts)


def load_square(path: Path, side: int) -> torch.Tensor:
    """An image as float (3, side, side) in [0, 1]: the largest centred square, scaled (Lanczos)."""
    try:
        with Image.open(path) as opened:
            upright = ImageOps.exif_transpose(opened).convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise ImageFolderError(f"{path} is no readable image ({error})") from None
    square = ImageOps.fit(upright, (side, side), Image.Resampling.LANCZOS)
    pixels = torch.frombuffer(bytearray(square.tobytes()), dtype=torch.uint8)
    return pixels.reshape(side, side, 3).permute(2, 0, 1).float() / 255
