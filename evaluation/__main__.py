"""``python -m evaluation sample | score | collect | tables | figures | claims``: files in, files out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from training.command import run_command, set_threads


def _sample(arguments) -> None:
    import torch

    from evaluation.sample import sample_run

    set_threads(arguments.threads)
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    sample_run(arguments.folder, arguments.settings, arguments.out, device)


def _score(arguments) -> None:
    from evaluation.score import score_run

    set_threads(arguments.threads)
    score_run(arguments.folder, arguments.images, arguments.settings, arguments.out)


def _collect(arguments) -> None:
    from evaluation.score import collect

    collect([folder / "scores.parquet" for folder in arguments.folders], arguments.out)


def _tables(arguments) -> None:
    from evaluation.report import render_tables

    for path in render_tables(arguments.scores, arguments.settings, arguments.out):
        print(path)


def _figures(arguments) -> None:
    from evaluation.report import render_figures

    for path in render_figures(arguments.scores, arguments.settings, arguments.out):
        print(path)


def _claims(arguments) -> None:
    from evaluation.claims import write

    write(arguments.scores, arguments.settings, arguments.claims, arguments.out)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m evaluation", description=__doc__)
    commands = parser.add_subparsers(required=True)

    def command(name: str, call, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text)
        added.set_defaults(call=call)
        return added

    sample = command("sample", _sample, "seeded evaluation images of one run")
    score = command("score", _score, "scores of one run's images")
    for added in (sample, score):
        added.add_argument("folder", type=Path, help="run folder")
        added.add_argument("--settings", type=Path, required=True)
        added.add_argument("--out", type=Path, required=True)
        added.add_argument("--threads", type=int, default=1)
    sample.add_argument("--device", help="default: a GPU where there is one")
    score.add_argument("--images", type=Path, required=True)
    collect = command("collect", _collect, "one table of the scores of many runs")
    collect.add_argument("folders", type=Path, nargs="+", help="run folders")
    collect.add_argument("--out", type=Path, required=True)
    judged = command("claims", _claims, "judge the papers' claims by stored scores")
    judged.add_argument("--claims", type=Path, required=True)
    rendering = [judged]
    for name, call in (("tables", _tables), ("figures", _figures)):
        rendering.append(command(name, call, f"render {name} from stored scores"))
    for added in rendering:
        added.add_argument("--scores", type=Path, required=True)
        added.add_argument(
            "--settings", type=Path, required=True, help="what to render, written by the workflow"
        )
        added.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    return run_command(arguments)


if __name__ == "__main__":
    sys.exit(main())
