"""A copy of what the workflow needs, so that tests write nothing into the repository."""

import shutil
from pathlib import Path

ROOT = Path(__file__).parent.parent
DATA = ("config", "profiles", "resources", "workflow", "Snakefile")
PACKAGES = sorted(file.parent.name for file in ROOT.glob("*/__init__.py") if file.parent.name != "tests")


def copy_repository(folder: Path) -> Path:
    for part in dict.fromkeys((*DATA, *PACKAGES)):
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder)
    return folder
