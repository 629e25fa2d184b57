"""VideoAlign (arXiv 2501.13918): visual quality, motion quality and text alignment of a clip, summed.

DanceGRPO and cosmos-rl's DDRL train on it. The port runs under the trainer's transformers; it has seen no
official weights, and only a score of upstream's own environment can confirm it.
"""

from __future__ import annotations

from typing import ClassVar

import torch

from rewards.base import Reward
from rewards.published.images import in_batches
from rewards.published.video_align import (
    BACKBONE,
    INSTRUCTION,
    TOKENS,
    WEIGHTS,
    VideoAlignModel,
    check_caption,
)

# Mean and standard deviation of a criterion's grades; upstream: the checkpoint's model_config.json.
NORMALISED = {"vq": (3.6757, 2.2476), "mq": (1.1646, 1.3811), "ta": (2.8105, 2.5121)}
BATCH = 4  # clips per forward pass; in bf16 padding rounds otherwise, by hundredths of a z-score


class VideoAlign(Reward):
    """The overall score, VQ + MQ + TA, each as a z-score.

    VQ and MQ precede the caption in the model's input and do not depend on it. Two frames per second of the
    clip are seen: which ones depends on ``frames_per_second``, which a clip does not carry.
    """

    name = "videoalign"
    role = "proxy"
    medium = "clip"
    scale = "sum of three z-scores, unbounded, about -6 to 6 (cosmos-rl cuts it to -5 to 5)"
    licence = "code and instruction: MIT; weights: Apache-2.0 (VideoReward, Qwen2-VL)"
    hub = (WEIGHTS, BACKBONE, INSTRUCTION)
    criteria: ClassVar[tuple[str, ...]] = tuple(TOKENS)
    frames_per_second: ClassVar[float] = 16.0  # upstream: cosmos-rl, video_fps; Cosmos-Predict2.5's own rate

    def __init__(self):
        self.model = VideoAlignModel.open()

    def score(self, images, prompts, metadata):
        found = self.z_scores(images, prompts)
        return torch.stack([found[criterion] for criterion in self.criteria]).sum(0)

    def components(self, images, prompts, metadata):
        return self.z_scores(images, prompts) if len(self.criteria) > 1 else {}

    def z_scores(self, clips: torch.Tensor, captions: list[str]) -> dict[str, torch.Tensor]:
        """float32 (N,) for "vq", "mq" and "ta"."""

        def batch(rows: torch.Tensor, texts: list[str]) -> torch.Tensor:
            grades = self.model.grades(rows, texts, self.frames_per_second)
            return torch.stack([(grades[name] - mean) / std for name, (mean, std) in NORMALISED.items()], 1)

        return dict(zip(NORMALISED, in_batches(batch, BATCH, clips, captions).unbind(1), strict=True))

    @classmethod
    def made_of(cls):
        return tuple(f"videoalign_{criterion}" for criterion in TOKENS)

    @classmethod
    def check_prompts(cls, metadata):
        for prompt in metadata:
            check_caption(prompt["prompt"])
