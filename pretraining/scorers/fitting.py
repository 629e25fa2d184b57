"""What the recipes of the scorers share: data batches, the optimiser loop, the preference objective."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from core.files import replacing
from pretraining.scorers import data
from pretraining.scorers.corruptions import corrupt

WRONG = 6  # wrong captions per image and step


class Scenes:
    """Rendered scenes with captions, and batches of their indices."""

    def __init__(self, n: int, seed: int):
        self.images, self.prompts = data.scenes(n, seed)
        self.captions = data.Captions([prompt["prompt"] for prompt in self.prompts])

    def draw(self, batch: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Indices (B,) and float images (B, 3, H, W)."""
        index = torch.randint(len(self.images), (batch,), generator=generator)
        return index, data.to_float(self.images[index])


def save(model: nn.Module, path: Path) -> None:
    """Write a model's weights."""
    with replacing(path) as temporary:
        # Contiguous: safetensors refuses the channels-last strides that training may leave behind.
        tensors = {key: value.contiguous() for key, value in model.state_dict().items()}
        save_file(tensors, temporary)


def seeded(seed: int) -> torch.Generator:
    """Seed the initial weights, and return the generator of everything else."""
    torch.manual_seed(seed)
    return torch.Generator().manual_seed(seed)


def uniform(n: int, low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    return low + (high - low) * torch.rand(n, generator=generator)


def mostly_clean(images: torch.Tensor, family: str, high: float, generator: torch.Generator) -> torch.Tensor:
    """Half of the images as they are, half with a corruption of severity up to ``high``."""
    severity = uniform(len(images), -high, high, generator).clamp(min=0)
    return corrupt(images, severity, family, generator)


def chosen(own: torch.Tensor, *rivals: torch.Tensor) -> torch.Tensor:
    """Bradley-Terry for many rivals (Plackett-Luce): mean of -log P(own is preferred to all of them).

    Args:
        own: scores (B,).
        rivals: scores (B, K) each; -inf takes no part.
    """
    return (torch.cat([own[:, None], *rivals], dim=1).logsumexp(1) - own).mean()


def preference_loss(
    model: nn.Module,
    captions: data.Captions,
    index: torch.Tensor,
    better: torch.Tensor,
    worse: torch.Tensor,
    generator: torch.Generator,
) -> torch.Tensor:
    """The right caption over wrong ones, the right image over others, the better image over the worse one.

    Args:
        index: (B,) of the captions; ``better`` holds their images (B, 3, H, W).
        worse: (W, 3, H, W), W <= B, versions of the first W images.
    """
    embedding, quality = model.image_terms(torch.cat([better, worse]))
    count = len(index)
    image, high = embedding[:count], quality[:count]
    right = model.caption_terms(captions.right(index))
    wrong = model.caption_terms(captions.wrong(index, WRONG, generator))
    scores = image @ right.T + high[:, None]
    others = scores.masked_fill(captions.may_agree(index), -torch.inf)  # the diagonal among them
    own = scores.diagonal()
    wrong_captions = (image[:, None] * wrong).sum(-1) + high[:, None]
    ruined = (embedding[count:] * right[: len(worse)]).sum(1, keepdim=True) + quality[count:, None]
    return chosen(own, others, wrong_captions) + chosen(own, others.T) + chosen(own[: len(worse)], ruined)
