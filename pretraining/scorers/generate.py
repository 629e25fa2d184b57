"""``python -m pretraining.scorers.generate``: base-model images that the ViT preference model learns from."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from base_models import open_base_model
from core.command import threads
from core.seeding import generator
from pretraining.pipelines.data import EVERYTHING, training_prompts
from pretraining.scorers.decoded import save_generated
from processes.sampling import decode, noise, sample_ode
from runs.config_files import load_base_model

PROMPTS, PER_PROMPT, BATCH = 600, 4, 96


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pretraining.scorers.generate", description=__doc__)
    parser.add_argument("--base", type=Path, required=True, help="folder of the tiny pipeline")
    parser.add_argument("--out", type=Path, required=True, help=".npz file")
    parser.add_argument("--threads", type=threads, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    config = load_base_model("tiny-sd3").model_copy(update={"path": str(arguments.base)})
    model = open_base_model(config)
    model.add_adapter()
    prompts = [p for p in training_prompts(PROMPTS, seed=77, shares=EVERYTHING) for _ in range(PER_PROMPT)]
    embeddings = model.encode_prompts([p["prompt"] for p in prompts])
    initial = noise((len(prompts), *model.latent_shape), generator("generated for scorers"), model.device)
    with model.using():
        latents = sample_ode(model, embeddings, initial, steps=config.evaluation_steps, batch=BATCH)
    save_generated(arguments.out, decode(model, latents, BATCH), prompts)


if __name__ == "__main__":
    main()
