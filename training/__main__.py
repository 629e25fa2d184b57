"""``python -m training run FOLDER`` trains one run; ``python -m training data ...`` makes DDRL's data."""

from __future__ import annotations

import argparse
import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path

from core.command import count, default_device, device, run_command, set_threads, start_quickly, threads


def _run(arguments) -> None:
    from runs.configuration import load_run
    from training.lock import only_writer
    from training.trainer import Trainer

    config = load_run(arguments.folder)
    check_weights(config.weights)
    first = os.environ.get("RANK", "0") == "0"  # of several processes; the others write nothing
    with only_writer(arguments.folder) if first else nullcontext():
        Trainer(config, arguments.folder, data=arguments.data, device=arguments.device).run()


def _data(arguments) -> None:
    from base_models import open_base_model
    from runs.config_files import load_base_model, load_task, weights_of
    from training import data
    from training.image_folder import ImageFolder
    from training.prompts import PromptSet
    from training.ranks import Ranks

    ranks = Ranks(arguments.device)
    base, task = load_base_model(arguments.base, arguments.task), load_task(arguments.task)
    model = open_base_model(base, ranks.device)
    prompts = PromptSet(Path(task.prompts), task.tag_weights, model, ranks=ranks)
    model.release_text_encoders()
    per_prompt, batch = arguments.per_prompt, arguments.batch
    if arguments.kind == "synthetic":
        identity = [base.model_dump(mode="json"), weights_of(base, task), prompts.prompts, per_prompt, batch]
        data.save_in_parts(
            arguments.out,
            lambda wanted: data.synthetic_parts(model, prompts, per_prompt, batch, wanted),
            count=-(-len(prompts.prompts) * per_prompt // batch),
            identity=json.dumps(identity),
            prompts=prompts,
            per_prompt=per_prompt,
            ranks=ranks,
        )
    elif ranks.main and task.real_data == "scenes":
        latents = data.real_latents(model, prompts, per_prompt, batch)
        data.save(arguments.out, latents, prompts, per_prompt, model)
    elif ranks.main:
        latents = ImageFolder(Path(task.real_data)).latents(model, prompts.prompts, per_prompt, batch)
        data.save(arguments.out, latents, prompts, per_prompt, model)


def check_weights(recorded: dict[str, str]) -> None:
    """Raise where a shipped file is not the one the run was resolved for."""
    from rewards.weights import verify

    verify(Path("resources"), list(recorded))


def main() -> int:
    start_quickly()
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run", help="train one run from its run.yaml; resumes from its checkpoint")
    run.add_argument("folder", type=Path)
    run.add_argument("--data", type=Path, help="data latents (methods with a data term)")
    run.set_defaults(call=_run)
    data = commands.add_parser("data", help="make data latents for one base model and task")
    data.add_argument("--base", required=True)
    data.add_argument("--task", required=True)
    data.add_argument("--kind", choices=("synthetic", "real"), required=True)
    data.add_argument("--per-prompt", type=count, default=2)
    data.add_argument("--batch", type=count, default=64, help="images per forward pass")
    data.add_argument("--out", type=Path, required=True)
    data.set_defaults(call=_data)
    for command in (run, data):
        command.add_argument("--threads", type=threads, default=1)
        command.add_argument("--device", type=device, default=default_device())
    arguments = parser.parse_args()
    set_threads(arguments.threads)
    return run_command(arguments)


if __name__ == "__main__":
    sys.exit(main())
