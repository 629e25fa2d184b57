"""CLIP models of transformers: unit embeddings of images and captions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch.nn import functional as F

from rewards.published.hub import HubFiles
from rewards.published.images import crop_to, device, normalised, to_pil

if TYPE_CHECKING:
    from transformers import CLIPModel

BATCH = 32  # images per forward pass; no effect on the scores
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
CLIP_L = HubFiles(
    "openai/clip-vit-large-patch14",
    ("config.json", "model.safetensors", *TOKENIZER_FILES),
    "MIT (code; the weights carry no licence tag)",
    "32bd64288804d66eefd0ccbe215aa642df71cc41",
)
# Configuration and tokenizer of ViT-H, whose fine-tuned weights PickScore and HPSv2 publish.
CLIP_H = HubFiles(
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
    ("config.json", *TOKENIZER_FILES),
    "MIT",
    "1c2b8495b28150b8a4922ee1c8edee224c284c0c",
)


class ClipEncoder:
    """A CLIP model and its tokenizer.

    Args:
        model: float32.
        tokenizer: folder with the tokenizer's files.
        fit: how an image becomes a square.
    """

    def __init__(
        self, model: CLIPModel, tokenizer: Path, fit: Callable[[Image.Image, int], Image.Image] = crop_to
    ):
        from transformers import CLIPTokenizer

        self.model = model.eval().requires_grad_(False).to(device())
        self.tokenizer = CLIPTokenizer.from_pretrained(tokenizer)
        self.fit = fit

    @classmethod
    def open(
        cls, model: Path, tokenizer: Path, fit: Callable[[Image.Image, int], Image.Image] = crop_to
    ) -> ClipEncoder:
        """From folders of the hub cache."""
        from transformers import CLIPModel

        return cls(CLIPModel.from_pretrained(model, use_safetensors=True), tokenizer, fit)

    @property
    def logit_scale(self) -> float:
        """The temperature's inverse, about 100 in OpenAI's models."""
        return self.model.logit_scale.exp().item()

    def images(self, images: torch.Tensor) -> torch.Tensor:
        """float (N, 3, H, W) in [0, 1] -> unit vectors (N, D)."""
        return self.pictures(to_pil(images))

    def pictures(self, pictures: list[Image.Image]) -> torch.Tensor:
        """N RGB images of any sizes -> unit vectors (N, D)."""
        size = self.model.config.vision_config.image_size
        pixels = normalised([self.fit(picture, size) for picture in pictures])
        pooled = self.model.get_image_features(pixels.to(self.model.device)).pooler_output
        return F.normalize(pooled, dim=-1)

    def texts(self, texts: list[str]) -> torch.Tensor:
        """N captions, cut after the model's length -> unit vectors (N, D)."""
        length = self.model.config.text_config.max_position_embeddings
        tokens = self.tokenizer(
            texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        )
        return F.normalize(self.model.get_text_features(**tokens.to(self.model.device)).pooler_output, dim=-1)

    def cosine(self, images: torch.Tensor, texts: list[str]) -> torch.Tensor:
        """Cosine of each image and its own caption, (N,)."""
        return (self.images(images) * self.texts(texts)).sum(-1)
