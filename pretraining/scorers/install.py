"""``python -m pretraining.scorers.install``: put rebuilt weights into resources/, record checksums."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from core.files import replacing
from rewards.weights import RESOURCES, write_checksums
from scenes import motion_prompts, prompts


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pretraining.scorers.install", description=__doc__)
    parser.add_argument("--bases", type=Path, nargs="*", default=[], help="folders of tiny pipelines")
    parser.add_argument("--scorers", type=Path, help="folder of the learned scorers")
    arguments = parser.parse_args()
    sources = [*arguments.bases, *([arguments.scorers] if arguments.scorers else [])]
    for source in sources:
        with replacing(RESOURCES / source.name) as temporary:
            shutil.copytree(source, temporary, ignore=shutil.ignore_patterns(".*"))  # Snakemake's marks
    prompts.write(RESOURCES / "prompts", {**prompts.split(), **motion_prompts.split()})
    print(write_checksums(RESOURCES))


if __name__ == "__main__":
    main()
