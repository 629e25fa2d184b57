"""``python -m prompt_sets make NAME --out FILE`` writes one set; ``sums`` prints what is not recorded yet;
``overlap TRAIN TEST`` prints how much of a test set is trained."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from core.command import run_command
from prompt_sets.configuration import load
from prompt_sets.fetch import PromptSetError, fetch, make
from prompt_sets.overlap import open_set, overlap, table


def _make(arguments) -> None:
    make(arguments.name, arguments.out)


def _sums(arguments) -> None:
    """Download every set with a file of which no sum is recorded and print the sums."""
    for name, entry in load().items():
        if any(not file.recorded for file in entry.files):
            prompts, unrecorded = fetch(name, entry)
            print(f"{name}: {len(prompts)} prompts")
            for url, came in unrecorded.items():
                print(f"  # {url}")
                for kind, value in came.items():
                    print(f"  {kind}: {value}")


def _overlap(arguments) -> None:
    train, test = open_set(arguments.train), open_set(arguments.test)
    found = overlap(train, test)
    print(f"trained: {arguments.train}, {len(train)} prompts; tested: {arguments.test}, {len(test)} prompts")
    print(table(found))
    shared = sum(of_tag.same_composition for of_tag in found.values())
    if shared and arguments.fail:
        raise PromptSetError(
            f"{shared} of the {len(test)} prompts of {arguments.test} are trained by {arguments.train}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m prompt_sets", description=__doc__)
    commands = parser.add_subparsers(required=True)
    made = commands.add_parser("make", help="fetch or generate one set")
    made.add_argument("name")
    made.add_argument("--out", type=Path, required=True)
    made.set_defaults(call=_make)
    sums = commands.add_parser(
        "sums", help="sha256 and git object id of every file for which none is recorded"
    )
    sums.set_defaults(call=_sums)
    shared = commands.add_parser("overlap", help="test prompts whose text or composition is trained")
    shared.add_argument("train", help="a .jsonl, .json or .txt file, or a set's name")
    shared.add_argument("test", help="the same")
    shared.add_argument("--fail", action="store_true", help="exit with 1 where any is trained")
    shared.set_defaults(call=_overlap)
    return run_command(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
