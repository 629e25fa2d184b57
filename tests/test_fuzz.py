"""Whatever stands in a configuration, a prompt set or a command line: it is valid, or one clear error.

Seeds are fixed (``derandomize``), the number of inputs bounds the time. More of the same, from other seeds:
``FUZZ=2000 python -m pytest tests/test_fuzz.py``.
"""

from __future__ import annotations

import copy
import functools
import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runs.main_config import check_main
from tests.repository_copy import copy_repository
from workflow.plan import make_plan

INPUTS = int(os.environ.get("FUZZ", "0"))  # of each test; 0: the fixed ones
MAIN = {
    "seeds": [901],
    "tables": ["main"],
    "training": {"iterations": 3},
    "grid": [{"base": "tiny-sd3", "task": "ocr", "methods": ["base", "grpo", "gardo", "ddrl_real"]}],
}
READ = [  # every kind of file that a person edits, and which the grid above reads
    "config/base_models/tiny-sd3.yaml",
    "config/tasks/ocr.yaml",
    "config/methods/gardo.yaml",
    "config/methods/ddrl_real.yaml",
    "config/methods/grpo.yaml",
    "config/evaluation.yaml",
    "config/tables.yaml",
    "config/trajectories.yaml",
    "config/figures.yaml",
    "config/claims.yaml",
    "config/instrument.yaml",
    "config/published.yaml",
    "config/prompt_sets.yaml",
    "config/gaussian_mixture.yaml",
]
PROMPTS = "resources/prompts/ocr_train.jsonl"
COMMANDS = {
    "training.__main__": [
        "run",
        "data",
        "--data",
        "--base",
        "--task",
        "--kind",
        "--per-prompt",
        "--batch",
        "--out",
    ],
    "evaluation.__main__": ["evaluate", "sample", "score", "--settings", "--out", "--out-images"],
    "reporting.__main__": [
        "collect",
        "tables",
        "claims",
        "figures",
        "--scores",
        "--settings",
        "--out",
        "--images",
    ],
    "reporting.publish": ["--command", "--readme", "--out"],
    "reporting.stored": ["keep", "take", "--out", "--store"],
    "reporting.tracking": ["log", "--tracking-uri", "--experiment", "--done"],
    "checking.__main__": ["--base", "--task", "--name", "--seed", "--images-per-prompt"],
    "voting.__main__": ["serve", "close", "--methods", "--against", "--folder", "--port"],
    "runs.__main__": ["explain", "--configfile", "--results"],
    "prompt_sets.__main__": ["make", "overlap", "--out", "--fail"],
    "didactic.__main__": [
        "run",
        "map-run",
        "--method",
        "--seed",
        "--config",
        "--grid",
        "--learning-rate",
        "--out",
    ],
}

ODD_TEXTS = [
    "",
    "nope",
    "../x",
    "a;touch x",
    "$(touch x)",
    "`touch x`",
    "\u2028",
    "a\nb",
    "é",
    "x" * 300,
    "null",
    "1e400",
]
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([10**30, -(10**30), 2**32, 2**63]),
    st.sampled_from([0.5, -0.5, float("inf"), float("-inf"), float("nan"), 1e308, 1e-320]),
    st.sampled_from(ODD_TEXTS),
    st.text(max_size=8),
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
)


def bounded(count: int):
    """Fixed inputs in the suite; ``FUZZ=n`` tries n others."""
    return settings(
        max_examples=INPUTS or count,
        derandomize=not INPUTS,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def places(tree: object, path: tuple = ()) -> list[tuple]:
    """Paths of every value in a tree of mappings and lists, the root's left out."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [found for key, value in items for found in [(*path, key), *places(value, (*path, key))]]


@st.composite
def changed(draw, tree: dict) -> dict:
    """The tree with one value replaced, removed, doubled or given a neighbour."""
    result = copy.deepcopy(tree)
    *above, key = draw(st.sampled_from(places(tree)))
    holder = functools.reduce(lambda inner, step: inner[step], above, result)
    kind = draw(st.sampled_from(["replace", "replace", "replace", "remove", "insert", "twice"]))
    if kind == "replace":
        holder[key] = draw(values)
    elif kind == "remove":
        del holder[key]
    elif isinstance(holder, list):
        holder.insert(key, holder[key] if kind == "twice" else draw(values))
    else:
        new = draw(st.sampled_from(["nope", f"{key}s", "1", ""]) | leaves)
        holder[new] = holder[key] if kind == "twice" else draw(values)
    return result


def forget() -> None:
    """Files are read once a process; here they change."""
    for module in [m for name, m in list(sys.modules.items()) if name.split(".")[0] in PACKAGES and m]:
        for value in list(vars(module).values()):
            if hasattr(value, "cache_clear") and getattr(value, "__module__", "").split(".")[0] in PACKAGES:
                value.cache_clear()


PACKAGES = (
    "checking",
    "base_models",
    "core",
    "didactic",
    "evaluation",
    "prompt_sets",
    "reporting",
    "rewards",
    "runs",
    "workflow",
)


def plan(config: dict) -> str:
    """What ``snakemake --dry-run`` does with a config before it counts jobs: '' or the one message."""
    forget()
    try:
        make_plan(check_main(config))
    except ValueError as error:
        return str(error) or "an error without a word"
    return ""


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    folder = copy_repository(tmp_path_factory.mktemp("fuzzed"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder
    forget()


@pytest.fixture(autouse=True)
def nothing_written(copied):
    def listing():
        return {
            str(p): p.stat().st_mtime_ns for p in sorted(copied.rglob("*")) if "__pycache__" not in p.parts
        }

    before = listing()
    yield
    assert listing() == before


def readable(message: str, *, names: str = "") -> None:
    """One line for each fault, no Python, and the file it is about."""
    for line in message.splitlines():
        assert len(line) < 3000 and "Traceback" not in line and "object at 0x" not in line, message
    assert names in message, f"{names!r} is not named: {message}"


@bounded(150)
@given(config=changed(MAIN))
def test_any_main_config_is_valid_or_one_error(config):
    readable(plan(config))


@contextmanager
def restored(path: Path) -> Iterator[bytes]:
    """What stands in the file, which is as it was afterwards, its time included: nothing was written."""
    original, times = path.read_bytes(), path.stat()
    try:
        yield original
    finally:
        path.write_bytes(original)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def planned_or_named(path: Path) -> None:
    """The grid is valid with this file as it stands, or the one error names it."""
    message = plan(MAIN)
    if message:
        readable(message, names=path.stem)


@pytest.mark.parametrize("name", READ)
def test_any_file_of_config_is_valid_or_one_error_that_names_it(copied, name):
    path = copied / name
    with restored(path) as original:

        @bounded(40)
        @given(value=changed(yaml.safe_load(original)))
        def fuzz(value):
            path.write_text(yaml.safe_dump(value, allow_unicode=True))
            planned_or_named(path)

        fuzz()


@pytest.mark.parametrize("name", READ)
def test_any_bytes_in_a_file_of_config_are_valid_or_one_error_that_names_it(copied, name):
    path = copied / name
    with restored(path) as original:

        @bounded(15)
        @given(place=st.floats(0, 1), added=st.binary(min_size=1, max_size=6), cut=st.integers(0, 20))
        def fuzz(place, added, cut):
            at = int(place * len(original))
            path.write_bytes(original[:at] + added + original[at + cut :])
            planned_or_named(path)

        fuzz()


def test_any_prompt_is_valid_or_one_error_that_names_file_and_line(copied):
    path = copied / PROMPTS
    with restored(path) as original:
        lines = original.decode().splitlines()

        @bounded(60)
        @given(value=changed(json.loads(lines[3])) | values)
        def fuzz(value):
            path.write_text("\n".join([*lines[:3], json.dumps(value), *lines[4:]]) + "\n")
            planned_or_named(path)

        fuzz()


def test_a_dry_run_of_any_main_config_plans_or_says_one_error(copied):
    """Through the real command line: no traceback, and nothing written but Snakemake's own folder."""
    path = copied / "fuzzed.yaml"

    @bounded(4)
    @given(config=changed(MAIN))
    def fuzz(config):
        path.write_text(yaml.safe_dump(config, allow_unicode=True))
        command = [sys.executable, "-m", "snakemake", "-n", "results/tables", "--configfile", path.name]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode in (0, 1)
        assert "Traceback" not in done.stderr, done.stderr
        readable(done.stderr)

    try:
        fuzz()
    finally:
        path.unlink()
        shutil.rmtree(copied / ".snakemake", ignore_errors=True)


@pytest.mark.parametrize("module", COMMANDS)
def test_any_arguments_of_a_command_are_one_error(copied, module, capsys, monkeypatch):
    """Nothing they name exists, so none can succeed; ``--help`` aside."""
    words = st.sampled_from(
        [*COMMANDS[module], "--threads", "--nope", "-1", "nan", "missing.yaml", *ODD_TEXTS]
    )
    main = importlib.import_module(module).main
    monkeypatch.setattr("core.command.set_threads", lambda count: None)
    monkeypatch.setattr("checking.__main__.set_threads", lambda count: None)

    @bounded(60)
    @given(arguments=st.lists(words.filter(lambda word: "\0" not in word), max_size=7))
    def fuzz(arguments):
        monkeypatch.setattr(sys, "argv", ["x", *arguments])
        capsys.readouterr()
        try:
            status = main()
        except SystemExit as stop:
            status = stop.code
        said = capsys.readouterr()
        assert status in (1, 2), (arguments, status, said)
        readable(said.err)
        assert said.err.strip()

    fuzz()
