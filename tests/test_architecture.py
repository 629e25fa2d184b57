"""The packages point one way, and no room holds too much."""

import subprocess
import sys
from pathlib import Path

import pytest

FILES = sorted(
    file
    for package in Path().glob("*/__init__.py")
    if package.parent.name != "tests"
    for file in package.parent.rglob("*.py")
) + sorted(Path("workflow").rglob("*.py"))
LONGEST = 300  # lines of a file


def test_packages_import_only_what_stands_below_them():
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command; lint_imports_command()",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("file", FILES, ids=str)
def test_a_file_is_read_in_one_go(file):
    assert len(file.read_text().splitlines()) <= LONGEST
