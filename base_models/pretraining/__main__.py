"""``python -m base_models.pretraining --out FOLDER`` makes the tiny base model, about an hour on two cores.

The result is meant to be imperfect, as SD3.5-Medium is on GenEval and OCR: a base model without
mistakes leaves nothing for RL to do. Do not train it longer.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch

from base_models.pretraining import autoencoder, data, denoiser
from base_models.pretraining.pipeline import build_pipeline
from scenes import prompts as prompt_sets
from training.files import replacing


@dataclass(frozen=True)
class Stage:
    """One pass of flow-matching pre-training on its own scenes."""

    shares: dict[str, float]
    scenes: int
    data_seed: int
    steps: int
    learning_rate: float
    seed: int
    speckled: float = 0.0


AUTOENCODER_STEPS = 2500
STAGES = (
    Stage(data.EVERYTHING, scenes=60_000, data_seed=1, steps=7000, learning_rate=1e-3, seed=0),
    # Text is learnt sooner than counting; the second stage evens them out.
    Stage(data.MOSTLY_OBJECTS, scenes=60_000, data_seed=11, steps=5000, learning_rate=8e-4, seed=1),
    # What the web does to captions: many images hold specks that no caption names. A model trained on them
    # makes a mistake that a rule-based detector punishes and that RL can unlearn for all prompts at once.
    Stage(data.UNTIDY, scenes=60_000, data_seed=21, steps=2000, learning_rate=6e-4, seed=2, speckled=0.6),
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m base_models.pretraining", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the steps and scenes, for a trial")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    pipeline = None
    for stage in STAGES:
        count = max(64, round(stage.scenes * arguments.scale))
        images, captions = data.scenes(count, stage.data_seed, stage.shares, stage.speckled)
        images = torch.from_numpy(images)
        if pipeline is None:
            steps = max(2, round(AUTOENCODER_STEPS * arguments.scale))
            vae = autoencoder.train(images, steps, batch=64, seed=0)
            print(
                f"autoencoder: mean absolute error {autoencoder.reconstruction_error(vae, images[:512]):.4f}"
            )
            torch.manual_seed(stage.seed)
            pipeline = build_pipeline([p["prompt"] for s in prompt_sets.split().values() for p in s], vae)
        latents = autoencoder.normalise(vae, autoencoder.encode(vae, images))
        steps = max(2, round(stage.steps * arguments.scale))
        denoiser.train(pipeline, latents, captions, steps, 128, stage.seed, stage.learning_rate)
    with replacing(arguments.out) as temporary:
        pipeline.save_pretrained(temporary, safe_serialization=True)


if __name__ == "__main__":
    main()
