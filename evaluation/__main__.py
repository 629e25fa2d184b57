"""``python -m evaluation COMMAND``: from a finished run to scores, verdicts, tables and figures."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from training.command import default_device, run_command, set_threads, start_quickly


def _sample(arguments) -> None:
    from evaluation.sample import sample_run

    set_threads(arguments.threads)
    sample_run(arguments.folder, arguments.settings, arguments.out, arguments.device or default_device())


def _score(arguments) -> None:
    from evaluation.score import score_run

    set_threads(arguments.threads)
    score_run(arguments.folder, arguments.images, arguments.settings, arguments.out, arguments.out_images)


def _collect(arguments) -> None:
    from evaluation.score import collect

    collect(arguments.folders, arguments.out, arguments.out_images)


def _results(arguments):
    from reporting.results import read

    return read(arguments.scores, arguments.settings, arguments.images, arguments.mixture)


def _tables(arguments) -> None:
    from reporting.report import render_tables

    for path in render_tables(_results(arguments), arguments.out, arguments.instrument):
        print(path)


def _figures(arguments) -> None:
    from reporting.figures.render import render_figures

    for path in render_figures(_results(arguments), arguments.out):
        print(path)


def _pages(arguments) -> None:
    from reporting.pages import render_pages

    for path in render_pages(_results(arguments), arguments.out):
        print(path)


def _claims(arguments) -> None:
    from reporting.report import judge_claims

    judge_claims(_results(arguments), arguments.claims, arguments.out, arguments.instrument)


def _instrument(arguments) -> None:
    from reporting.report import check_instrument

    check_instrument(_results(arguments), arguments.checks, arguments.out)


def _tuning(arguments) -> None:
    from reporting.tuning import render

    render(_results(arguments), arguments.checks, arguments.out)


def main() -> int:
    start_quickly()
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
    sample.add_argument("--device", help="default: the accelerator, if there is one")
    score.add_argument("--images", type=Path, required=True)
    collect = command("collect", _collect, "one table of the scores of many runs")
    collect.add_argument("folders", type=Path, nargs="+", help="run folders")
    collect.add_argument("--out", type=Path, required=True)
    for added in (score, collect):
        added.add_argument("--out-images", type=Path, required=True, help="scores of the single images")
    judged = command("claims", _claims, "judge the papers' claims by stored scores")
    judged.add_argument("--claims", type=Path, required=True)
    checked = command("instrument", _instrument, "judge the suite itself by its controls")
    tuned = command("tuning", _tuning, "the settings that were tried, and the cheapest that can be trusted")
    for added in (checked, tuned):
        added.add_argument("--checks", type=Path, required=True, help="thresholds and what claims need")
    rendering = [checked, tuned, judged]
    for name, call in (("tables", _tables), ("figures", _figures), ("pages", _pages)):
        rendering.append(command(name, call, f"render {name} from stored scores"))
    for added in rendering[2:4]:
        added.add_argument("--instrument", type=Path, required=True, help="instrument.json")
    for added in rendering:
        added.add_argument("--scores", type=Path, required=True)
        added.add_argument("--images", type=Path, help="scores of the single images; without: seeds alone")
        added.add_argument("--mixture", type=Path, help="results of the Gaussian mixture, where it was run")
        added.add_argument(
            "--settings", type=Path, required=True, help="what to render, written by the workflow"
        )
        added.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    return run_command(arguments)


if __name__ == "__main__":
    sys.exit(main())
