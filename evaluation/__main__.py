"""``python -m evaluation COMMAND``: from a finished run to its scores."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from core.command import default_device, device, run_command, set_threads, start_quickly, threads


def _evaluate(arguments) -> None:
    from evaluation.evaluate import evaluate_run

    device = arguments.device or default_device()
    evaluate_run(arguments.folder, arguments.settings, *_outputs(arguments), device)


def _sample(arguments) -> None:
    from evaluation.configuration import load_run_evaluation
    from evaluation.sample import sample_run
    from runs.configuration import load_run

    settings = load_run_evaluation(arguments.settings)
    sample_run(arguments.folder, load_run(arguments.folder), settings, arguments.device or default_device())


def _score(arguments) -> None:
    from evaluation.configuration import load_run_evaluation
    from evaluation.score import score_run
    from runs.configuration import load_run

    settings = load_run_evaluation(arguments.settings)
    score_run(arguments.folder, load_run(arguments.folder), settings, *_outputs(arguments))


def _outputs(arguments) -> tuple[Path, Path]:
    return (
        arguments.out or arguments.folder / "scores.parquet",
        arguments.out_images or arguments.folder / "image_scores.parquet",
    )


def _called(arguments) -> None:
    set_threads(arguments.threads)
    arguments.command(arguments)


def main() -> int:
    start_quickly()
    parser = argparse.ArgumentParser(prog="python -m evaluation", description=__doc__)
    commands = parser.add_subparsers(required=True)
    for name, call, text in (
        ("evaluate", _evaluate, "sample one run's images and score them"),
        ("sample", _sample, "seeded evaluation images of one run, into its folder's images/"),
        ("score", _score, "scores of one run's images"),
    ):
        command = commands.add_parser(name, help=text)
        command.set_defaults(call=_called, command=call)
        command.add_argument("folder", type=Path, help="run folder")
        command.add_argument(
            "--settings", type=Path, required=True, help="results/config/evaluation/<task>.yaml"
        )
        command.add_argument("--threads", type=threads, default=1)
        if call is not _score:
            command.add_argument("--device", type=device, help="default: the accelerator, if there is one")
        if call is not _sample:
            command.add_argument("--out", type=Path, help="default: scores.parquet of the folder")
            command.add_argument("--out-images", type=Path, help="scores of the single images")
    return run_command(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
