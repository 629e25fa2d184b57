"""Where a result came from: a tree that is not its commit is always said to be dirty."""

import subprocess

import pytest

from training.provenance import git_of_both, git_state


def git(*arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    return subprocess.run(["git", *identity, *arguments], capture_output=True, text=True, check=True).stdout


@pytest.fixture
def repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    git("init", "-q")
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods/grpo.py").write_text("beta = 0\n")
    (tmp_path / ".gitignore").write_text("results/\n")
    git("add", ".")
    git("commit", "-qm", "first")
    return tmp_path


def test_a_clean_tree_has_its_commit(repository):
    (repository / "results").mkdir()
    (repository / "results/made.py").write_text("")
    (repository / "notes.txt").write_text("neither tracked nor code")
    assert git_state() == {"commit": git("rev-parse", "HEAD").strip(), "dirty": False}


@pytest.mark.parametrize("name", ["methods/grpo.py", "methods/new.py", ".gitignore"])
def test_changed_files_and_new_code_make_it_dirty(repository, name):
    (repository / name).write_text("beta = 1\n")
    assert git_state()["dirty"] is True


def test_outside_a_repository_nothing_is_claimed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_state() == {"commit": None, "dirty": None}


CLEAN, DIRTY = {"commit": "a", "dirty": False}, {"commit": "a", "dirty": True}


@pytest.mark.parametrize("before", [DIRTY, {"commit": "b", "dirty": False}])
def test_a_resumed_run_is_clean_only_if_all_of_it_was(before):
    assert git_of_both(CLEAN, CLEAN) == CLEAN
    unknown = {"commit": None, "dirty": None}  # code that is in no repository
    assert git_of_both(unknown, unknown) == unknown
    assert git_of_both(before, CLEAN) == git_of_both(CLEAN, DIRTY) == DIRTY
