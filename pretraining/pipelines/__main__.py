"""``python -m pretraining.pipelines NAME --out FOLDER`` makes a tiny base model in about an hour.

The result is meant to be imperfect, as SD3.5-Medium is on GenEval and OCR: a base model without
mistakes leaves nothing for RL to do. Do not train it longer.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from core.command import threads
from core.files import replacing
from pretraining.pipelines import denoiser
from pretraining.pipelines.recipe import Recipe
from pretraining.pipelines.tiny_cosmos import TinyCosmos
from pretraining.pipelines.tiny_flux import TinyFlux
from pretraining.pipelines.tiny_sd3 import TinySD3

RECIPES: dict[str, type[Recipe]] = {recipe.name: recipe for recipe in (TinySD3, TinyFlux, TinyCosmos)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pretraining.pipelines", description=__doc__)
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--autoencoder", type=Path, help="use this trained one instead of training it")
    parser.add_argument("--threads", type=threads, default=2)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the steps and scenes, for a trial")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    cls, recipe, vae = RECIPES[arguments.name], None, None
    if arguments.autoencoder:
        vae = cls.autoencoder.opened(arguments.autoencoder)
    for stage in cls.stages:
        count = max(64, round(stage.scenes * arguments.scale))
        media, captions = cls.scenes(count, stage)
        media = torch.from_numpy(media)
        if vae is None:
            steps = max(2, round(cls.autoencoder_steps * arguments.scale))
            vae = cls.autoencoder.train(media, steps, seed=0)
        if recipe is None:
            error = cls.autoencoder.reconstruction_error(vae, media[:512])
            print(f"autoencoder: mean absolute error {error:.4f}")
            torch.manual_seed(stage.seed)
            recipe = cls(cls.captions(), vae)
        latents = cls.autoencoder.normalise(vae, cls.autoencoder.encode(vae, media))
        steps = max(2, round(stage.steps * arguments.scale))
        stop = stage.stop and max(1, round(stage.stop * arguments.scale))
        denoiser.train(recipe, latents, captions, steps, stage.seed, stage.learning_rate, stop)
    with replacing(arguments.out) as temporary:
        recipe.pipeline.save_pretrained(temporary, safe_serialization=True)
        if recipe.half_precision_files:
            halve(temporary)


def halve(folder: Path) -> None:
    """Store every weight file in half precision; the configs still say float32, so opening casts back."""
    for path in folder.glob("*/*.safetensors"):
        save_file({k: v.half() for k, v in load_file(path).items()}, path, {"format": "pt"})


if __name__ == "__main__":
    main()
