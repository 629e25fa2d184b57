"""Train all scorers, write their weights and held-out reports. See ``python -m pretraining.scorers -h``."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch

from core.command import threads
from core.files import write_json
from pretraining.scorers import clips, train
from pretraining.scorers.decoded import load_generated
from pretraining.scorers.fitting import save
from pretraining.scorers.report import encoder_report, ranking_report
from rewards.weights import RESOURCES


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pretraining.scorers", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the weights and scorers.json")
    parser.add_argument("--threads", type=threads, default=1, help="CPU threads of torch")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on all training lengths")
    parser.add_argument("--generated", type=Path, help="images of the base model (decoded.save_generated)")
    parser.add_argument(
        "--autoencoder", type=Path, default=RESOURCES / "tiny-sd3" / "vae", help="folder of the base's VAE"
    )
    args = parser.parse_args()
    if not (args.autoencoder / "config.json").exists():
        sys.exit(f"no autoencoder in {args.autoencoder}: train the base model first, or pass --autoencoder")
    torch.set_num_threads(args.threads)
    generated = load_generated(args.generated) if args.generated else None

    def length(count: int) -> int:
        return max(20, round(count * args.scale))

    def steps(name: str) -> int:
        return length(train.STEPS[name])

    scenes = train.Scenes(length(train.SCENES), train.SEED)
    recipes = {
        "scene_aesthetic": lambda: train.train_aesthetic(scenes, steps("scene_aesthetic")),
        "scene_preference": lambda: train.train_preference(scenes, steps("scene_preference")),
        "scene_text_score": lambda: train.train_text_score(scenes, steps("scene_text_score")),
        "scene_preference_vit": lambda: train.train_preference_vit(
            train.Scenes(length(train.VIT_SCENES), train.VIT_SEED),
            args.autoencoder,
            steps("scene_preference_vit"),
            generated,
        ),
        "scene_encoder": lambda: train.train_encoder(scenes, steps("scene_encoder")),
    }
    report: dict[str, dict[str, float]] = {}
    for name, recipe in recipes.items():
        start = time.perf_counter()
        model = recipe()
        seconds = time.perf_counter() - start
        save(model, args.out / f"{name}.safetensors")
        if name == "scene_encoder":
            found = encoder_report(model)
        else:
            found = ranking_report(model, sees_text=name != "scene_aesthetic")
        report[name] = {key: round(value, 4) for key, value in found.items()}
        print(f"{name}: trained in {seconds:.0f} s")
        for key, value in report[name].items():
            print(f"  {key:<28}{value:.3f}")
    write_json(args.out / "scorers.json", report)
    clips.train_all(args.out, args.scale)


if __name__ == "__main__":
    main()
