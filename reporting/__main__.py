"""``python -m reporting COMMAND``: from stored scores to verdicts, tables and figures. Opens no model."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from core.command import run_command, start_quickly


def _collect(arguments) -> None:
    from reporting.results import collect

    collect(arguments.folders, arguments.out, arguments.out_images)


def _results(arguments):
    from reporting.results import read

    return read(arguments.scores, arguments.settings, arguments.images, arguments.mixture)


def _tables(arguments) -> None:
    from reporting.report import render_tables

    for path in render_tables(_results(arguments), arguments.out, arguments.instrument):
        print(path)


def _figures(arguments) -> None:
    from reporting.draw import render_figures

    for path in render_figures(_results(arguments), arguments.out):
        print(path)


def _answer(arguments) -> None:
    from reporting import answer

    judged = arguments.instrument, arguments.claims
    shown = arguments.figures, arguments.gallery
    answer.write(_results(arguments), *judged, *shown, arguments.introduction, arguments.out)


def _gallery(arguments) -> None:
    from reporting.gallery import render

    render(_results(arguments), arguments.out)


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
    parser = argparse.ArgumentParser(prog="python -m reporting", description=__doc__)
    commands = parser.add_subparsers(required=True)

    def command(name: str, call, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text)
        added.set_defaults(call=call)
        added.add_argument("--out", type=Path, required=True)
        return added

    collect = command("collect", _collect, "one table of the scores of many runs")
    collect.add_argument("folders", type=Path, nargs="+", help="run folders")
    collect.add_argument("--out-images", type=Path, required=True, help="scores of the single images")
    tables = command("tables", _tables, "render tables from stored scores")
    figures = command("figures", _figures, "render figures from stored scores")
    answer = command("answer", _answer, "what the report opens on")
    answer.add_argument("--figures", type=Path, required=True, help="folder of the figures")
    answer.add_argument("--gallery", type=Path, required=True, help="the page of images")
    answer.add_argument("--introduction", type=Path, required=True, help="text below the answer")
    gallery = command("gallery", _gallery, "one page with the images of all methods")
    pages = command("pages", _pages, "render pages from stored scores")
    claims = command("claims", _claims, "judge the papers' claims by stored scores")
    instrument = command("instrument", _instrument, "judge the suite itself by its controls")
    tuning = command("tuning", _tuning, "the settings that were tried, and the cheapest that can be trusted")
    for added in (claims, answer):
        added.add_argument("--claims", type=Path, required=True)
    for added in (instrument, tuning):
        added.add_argument("--checks", type=Path, required=True, help="thresholds and what claims need")
    for added in (tables, claims, answer):
        added.add_argument("--instrument", type=Path, required=True, help="instrument.json")
    for added in (tables, figures, answer, gallery, pages, claims, instrument, tuning):
        added.add_argument("--scores", type=Path, required=True)
        added.add_argument("--images", type=Path, help="scores of the single images; without: seeds alone")
        added.add_argument("--mixture", type=Path, help="results of the Gaussian mixture, where it was run")
        added.add_argument(
            "--settings", type=Path, required=True, help="what to render, written by the workflow"
        )
    return run_command(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
