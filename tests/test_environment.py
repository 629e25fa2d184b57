"""One set of versions: pyproject.toml, requirements.lock, environment.yml and what is installed agree."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DIRECT = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
HASH = re.compile(r"\s*--hash=sha256:[0-9a-f]{64}( \\)?")


def pins(name: str) -> list[str]:
    """Lines of a lock file that name a package, without its hashes."""
    lines = [line for line in (ROOT / name).read_text().splitlines() if not line.startswith("#")]
    return [line.removesuffix(" \\") for line in lines if not HASH.fullmatch(line)]


FILES = ("requirements.lock", "requirements-torch.lock", "requirements-torch-cpu.lock")
LINES = pins("requirements.lock")
TORCH, *CUDA_LINES = pins("requirements-torch.lock")
LOCK = {canonicalize_name(name): version for name, version in (line.split("==") for line in [*LINES, TORCH])}
GPU_LIBRARIES = re.compile("nvidia|cuda|triton")  # come with torch on some platforms, which pins them itself


def installed(name: str) -> str:
    """Installed version of a package without the suffix of its build (`+cpu`)."""
    return metadata.version(name).split("+")[0]


def test_the_lock_names_plain_versions_only():
    assert len(LOCK) == len(LINES) + 1
    for line in LINES:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.]*", line), line
        assert not GPU_LIBRARIES.match(line)


@pytest.mark.parametrize("name", FILES)
def test_every_pin_has_hashes(name):
    blocks = re.split(r"\n(?=[a-z])", (ROOT / name).read_text())
    hashed = {lines[0].removesuffix(" \\") for lines in map(str.splitlines, blocks) if len(lines) > 1}
    assert hashed >= set(pins(name)) != set()


def test_the_libraries_of_torchs_cuda_build_are_for_linux_only():
    assert CUDA_LINES and all(
        GPU_LIBRARIES.match(line) and "sys_platform == 'linux'" in line for line in CUDA_LINES
    )


def test_both_builds_of_torch_are_the_same_version():
    assert pins("requirements-torch-cpu.lock") == [f"{TORCH}+cpu"]


def test_an_installation_checks_the_hashes():
    recipe = (ROOT / "Makefile").read_text().splitlines()
    assert [line for line in recipe if "pip install" in line] == [
        "INSTALL := $(BIN)/python -m pip install --quiet --no-deps --require-hashes"
    ]
    assert {name for line in recipe if "$(INSTALL)" in line for name in FILES if name in line} == set(FILES)


def test_direct_dependencies_are_pinned_as_in_the_lock():
    for pin in DIRECT:
        name, version = pin.split("==")
        assert LOCK[canonicalize_name(name)] == version, pin


def test_the_lock_is_complete():
    """Everything that the direct dependencies need here, to any depth, is in the lock."""
    todo, seen = [Requirement(pin).name for pin in DIRECT], set()
    while todo:
        name = canonicalize_name(todo.pop())
        if name in seen or GPU_LIBRARIES.match(name):
            continue
        seen.add(name)
        assert name in LOCK, f"{name} is missing from requirements.lock"
        needed = [Requirement(text) for text in metadata.requires(name) or []]
        todo += [need.name for need in needed if need.marker is None or need.marker.evaluate({"extra": ""})]


def test_the_installed_versions_are_those_of_the_lock():
    wrong = {name: installed(name) for name, version in LOCK.items() if installed(name) != version}
    assert not wrong, f"not as in requirements.lock: {wrong}"


def test_conda_installs_the_same_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, nested = environment["dependencies"]
    assert pip == "pip" and nested == {"pip": ["-r requirements.lock", "-r requirements-torch.lock"]}
    version = python.removeprefix("python=")
    assert SpecifierSet(PROJECT["requires-python"]).contains(version)
