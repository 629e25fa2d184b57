"""A copy of what the workflow needs, so that tests write nothing into the repository."""

import shutil
from pathlib import Path

ROOT = Path(__file__).parent.parent
PARTS = (
    "base_models config didactic evaluation methods profiles prompt_sets resources rewards scenes "
    "runs training workflow Snakefile plugins.py"
).split()


def copy_repository(folder: Path) -> Path:
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder)
    return folder
