"""Every command of the documents is executed as it is written, in a copy of the repository.

What would train runs is asked for its plan instead (``snakemake --dry-run``), what would run for long reads
its arguments and stops: a ``snakemake`` and a ``python`` that do so stand first on the path. The text of a
command is not touched.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.repository_copy import ROOT, copy_repository

DOCUMENTS = ["README.md", "config/README.md", "benchmarks/README.md"]
DOCUMENTS += sorted(
    str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md") if "example_adapter" not in p.parts
)
FENCED = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:make|snakemake|python -m|torchrun) [^`]*)`")
PLACEHOLDER = re.compile(r"<\w+>|\b(FILE|RUN|TRAIN|TEST|FOLDER|MODULE|ARGUMENTS)\b")
# Not told what they need: a name of a command in a sentence, no line to be typed.
PARTS = {
    "python -m evaluation evaluate",
    "python -m reporting.publish",
    "snakemake --unlock",
}
PYTHON = """#!{python}
import runpy, sys
arguments = sys.argv[1:]
if arguments[:1] != ["-m"]:
    import os
    os.execv(sys.executable, [sys.executable, *arguments])
module = arguments[1]
sys.argv = [module, *arguments[2:]]
sys.path.insert(0, "")
if module == "pytest":
    sys.exit(0)  # these tests
if module.startswith("benchmarks"):
    sys.argv.append("--help")  # which ends before anything is measured, and after a flag that is unknown
import core.command
core.command.run_command = lambda arguments: 0  # what they say was understood
runpy.run_module(module, run_name="__main__")
"""
SNAKEMAKE = """#!/bin/sh
case "$*" in *"--report "*) exit 0;; esac  # which needs what a dry run does not make
exec {python} -m snakemake --dry-run "$@"
"""


def commands() -> dict[str, list[str]]:
    """Scripts, and the documents in which they stand: whole blocks, and commands within sentences."""
    found: dict[str, list[str]] = {}
    for name in DOCUMENTS:
        text = (ROOT / name).read_text()
        inline = [match.replace("\n", " ") for match in INLINE.findall(FENCED.sub("", text))]
        wanted = [c for c in inline if not PLACEHOLDER.search(c) and c not in PARTS]
        for script in [*FENCED.findall(text), *wanted]:
            found.setdefault(script, []).append(name)
    return found


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    folder = copy_repository(tmp_path_factory.mktemp("documented"))
    for name in ("Makefile", "requirements.lock", "requirements-torch.lock", "requirements-torch-cpu.lock"):
        shutil.copy(ROOT / name, folder)
    for name in ("docs", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, text in (("python", PYTHON), ("snakemake", SNAKEMAKE)):
        (programs / name).write_text(text.format(python=sys.executable))
        (programs / name).chmod(0o755)
    for name in ("torchrun", "true"):
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o755)
    (folder / ".venv" / ".complete").touch()
    # What commands read that earlier ones make.
    (folder / "results").mkdir()
    (folder / "results" / "base_check.md").touch()
    shutil.copytree(folder / "workflow/profiles/slurm", folder / "workflow/profiles/mine")
    return folder


def test_there_is_something_to_execute():
    found = commands()
    assert len(found) > 25 and any("make tables" in script for script in found)


@pytest.mark.parametrize("script", commands(), ids=lambda script: script.strip().splitlines()[0][:60])
def test_a_documented_command_is_understood(copied, script):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "GOODHART", "MAKE"))}
    environment |= {"PATH": f"{copied / '.venv' / 'bin'}:{os.environ['PATH']}", "EDITOR": "true"}
    if "cp -r workflow/profiles/slurm" in script:
        shutil.rmtree(copied / "workflow/profiles/mine")  # this is the command that makes it
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=copied,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
