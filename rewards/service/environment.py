"""Environments of rewards whose package versions clash with the trainer's.

A virtual environment holds the pins of ``rewards/environments/<name>.txt`` and nothing else; behind them on
the module path stand the trainer's packages, so that torch is neither downloaded nor stored twice.
Command line: ``python -m rewards.service.environment rewards/environments/hps_v3.txt --out DIR``
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterable
from pathlib import Path

import rewards
from core.files import sha256, write_json, write_text

DECLARED = Path(__file__).resolve().parents[1] / "environments"
BUILT = Path(__file__).resolve().parents[2] / "results" / "environments"
STAMP = "environment.json"


class EnvironmentMissing(RuntimeError):
    """The environment of a reward is not there, or is not the declared one."""


def _stamp(requirements: Path) -> dict:
    return {"requirements": sha256(requirements), "trainer": sys.prefix, "python": sys.version.split()[0]}


def build(requirements: Path, out: Path) -> None:
    """Create ``out``; its stamp is written last, so an interrupted one is never taken for a whole one."""
    venv.create(out, with_pip=False, clear=True)
    python = out / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--requirement", str(requirements)], check=True)
    own = Path(sysconfig.get_path("purelib", "venv", {"base": str(out), "platbase": str(out)}))
    write_text(own / "trainer.pth", sysconfig.get_path("purelib") + "\n")
    write_json(out / STAMP, _stamp(requirements))


def folders(names: Iterable[str]) -> list[str]:
    """Where the environments of these rewards lie or will lie, for those that have their own."""
    found = {rewards.get_class(name).environment for name in names} - {None}
    return [str(Path("results") / "environments" / name) for name in sorted(found)]


def interpreter(name: str) -> Path:
    """The environment's Python. Raises ``EnvironmentMissing`` with the command that builds it."""
    folder = BUILT / name
    how = f"build it with: snakemake --cores 1 results/environments/{name}"
    if not (folder / STAMP).exists():
        raise EnvironmentMissing(f"the environment {folder} is missing; {how}")
    if json.loads((folder / STAMP).read_text()) != _stamp(DECLARED / f"{name}.txt"):
        raise EnvironmentMissing(
            f"the environment {folder} was built from another {name}.txt or by another Python; "
            f"remove it and {how}"
        )
    return folder / "bin" / "python"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m rewards.service.environment", description=__doc__)
    parser.add_argument("requirements", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    build(options.requirements, options.out)


if __name__ == "__main__":
    main()
