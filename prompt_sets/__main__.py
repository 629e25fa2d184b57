"""``python -m prompt_sets make NAME --out FILE`` writes one set; ``sums`` prints what is not recorded yet."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from prompt_sets.configuration import load
from prompt_sets.fetch import fetch, make
from training.command import run_command


def _make(arguments) -> None:
    make(arguments.name, arguments.out)


def _sums(arguments) -> None:
    """Download every set with an unrecorded file and print the sums, to be checked and written down."""
    for name, entry in load().items():
        if any(file.sha256 is None for file in entry.files):
            prompts, unrecorded = fetch(name, entry)
            print(f"{name}: {len(prompts)} prompts")
            for url, digest in unrecorded.items():
                print(f"  sha256: {digest}  # of {url}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m prompt_sets", description=__doc__)
    commands = parser.add_subparsers(required=True)
    made = commands.add_parser("make", help="fetch or generate one set")
    made.add_argument("name")
    made.add_argument("--out", type=Path, required=True)
    made.set_defaults(call=_make)
    sums = commands.add_parser("sums", help="sha256 of every file for which none is recorded")
    sums.set_defaults(call=_sums)
    return run_command(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
