"""``python -m pretraining.scorers.clips_normalise``: z-scores of clips relative to those of a base model.

Rewrites the reference mean and deviation of every criterion in the weights of a folder, and nothing else; of
the shipped ones also their checksums.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

import safetensors.torch
import torch

from base_models import open_base_model
from core.command import threads
from core.seeding import generator
from pretraining.scorers.clips import RECIPES, normalise
from pretraining.scorers.fitting import save
from processes.sampling import decode, noise, sample_ode
from rewards.clip_networks import CRITERIA, ClipScorer
from rewards.weights import RESOURCES, write_checksums
from runs.config_files import load_base_model
from scenes import motion_prompts

SHIPPED = RESOURCES / "scorers"
CLIPS, BATCH = 600, 72


def base_clips(folder: Path, count: int) -> tuple[torch.Tensor, list[str]]:
    """Clips float (N, F, 3, H, W) that the base model in ``folder`` makes for train prompts, and captions."""
    config = load_base_model("tiny-cosmos").model_copy(update={"path": str(folder)})
    model = open_base_model(config)
    model.add_adapter()
    prompts = random.Random(88).choices(motion_prompts.split()["motion_train"], k=count)
    captions = [prompt["prompt"] for prompt in prompts]
    embeddings = model.encode_prompts(captions)
    initial = noise((count, *model.latent_shape), generator("clips for scorers"), model.device)
    with model.using():
        latents = sample_ode(model, embeddings, initial, steps=config.evaluation_steps, batch=BATCH)
    return decode(model, latents, BATCH), captions


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pretraining.scorers.clips_normalise", description=__doc__
    )
    parser.add_argument("--scorers", type=Path, default=SHIPPED, help="folder of the trained scorers")
    parser.add_argument(
        "--base", type=Path, default=RESOURCES / "tiny-cosmos", help="folder of the base model"
    )
    parser.add_argument("--clips", type=int, default=CLIPS, help="how many to make")
    parser.add_argument("--threads", type=threads, default=1)
    arguments = parser.parse_args()
    paths = {name: arguments.scorers / f"{name}.safetensors" for name in RECIPES}
    if missing := [str(path) for path in paths.values() if not path.exists()]:
        sys.exit(f"{', '.join(missing)} missing: train them first, python -m pretraining.scorers.clips")
    torch.set_num_threads(arguments.threads)
    clips, captions = base_clips(arguments.base, arguments.clips)
    for name, path in paths.items():
        model = ClipScorer(RECIPES[name]["tower"]()).eval()
        model.load_state_dict(safetensors.torch.load_file(path))
        mean, std = model.mean.tolist(), model.std.tolist()
        normalise(model, clips, captions)
        save(model, path)
        for i, criterion in enumerate(CRITERIA):
            print(
                f"{name} {criterion}: mean {mean[i]:.2f} -> {model.mean[i]:.2f}, "
                f"standard deviation {std[i]:.2f} -> {model.std[i]:.2f}"
            )
    if arguments.scorers.resolve() == SHIPPED.resolve():
        write_checksums(RESOURCES)


if __name__ == "__main__":
    main()
