"""The picture of the workflow in ``docs/workflow.md``, from the rules: ``python -m workflow.rule_graph``."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path("docs/workflow.md")
TARGETS = ("report", "mlflow")
BLOCK = re.compile(r"(?<=```mermaid\n).*?(?=```)", re.DOTALL)


def rule_graph() -> str:
    """Mermaid text with rules by name and in order, since Snakemake numbers them differently every time.

    Raises ``subprocess.CalledProcessError`` where the workflow cannot be read.
    """
    command = [sys.executable, "-m", "snakemake", "--rulegraph", "mermaid-js", "--forceall", "--", *TARGETS]
    drawn = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    names = dict(re.findall(r"^\t(id\d+)\[(\w+)\]$", drawn, re.MULTILINE))
    edges = re.findall(r"^\t(id\d+) --> (id\d+)$", drawn, re.MULTILINE)
    lines = sorted(f"    {names[start]} --> {names[end]}\n" for start, end in edges)
    return "flowchart LR\n" + "".join(lines)


def main() -> None:
    PAGE.write_text(BLOCK.sub(rule_graph(), PAGE.read_text()))


if __name__ == "__main__":
    main()
