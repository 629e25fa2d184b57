"""Processes that train one run: how long they wait, who may write, how they share what is made once."""

import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from base_models import open_base_model
from runs.config_files import load_base_model, load_task
from training import data, lock, ranks
from training.lock import Busy, only_writer
from training.prompts import KEPT, PromptSet

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def model():
    return open_base_model(load_base_model("tiny-sd3"))


@pytest.fixture
def few(tmp_path):
    """A file of five training prompts."""
    lines = Path(load_task("counting").prompts).read_text().splitlines(keepends=True)
    path = tmp_path / "few.jsonl"
    path.write_text("".join(lines[:5]))
    return path


class Process:
    """One of several processes of a node, run one after the other."""

    def __init__(self, index: int, count: int, folder: Path):
        self.index, self.count, self.folder = index, count, folder
        self.main = self.first_of_node = index == 0
        self.on_node = index, count

    def node_folder(self):
        return nullcontext(self.folder)

    def wait(self):
        pass


# --- waiting


def test_processes_wait_two_hours_unless_told_otherwise(monkeypatch):
    monkeypatch.delenv(ranks.TIMEOUT, raising=False)
    assert ranks.timeout() == timedelta(hours=2)
    monkeypatch.setenv(ranks.TIMEOUT, "0.5")
    assert ranks.timeout() == timedelta(seconds=30)


@pytest.mark.parametrize("wrong", ["2h", "0", "-1", "inf", "nan"])
def test_a_wrong_timeout_is_named(monkeypatch, wrong):
    monkeypatch.setenv(ranks.TIMEOUT, wrong)
    with pytest.raises(ValueError, match=f"GOODHART_PROCESS_TIMEOUT is '{wrong}'; valid: minutes"):
        ranks.timeout()


@pytest.mark.parametrize("minutes, ends_well", [("", True), ("0.02", False)])
def test_the_timeout_reaches_the_processes(minutes, ends_well):
    command = ["torchrun", "--nproc_per_node", "2", "tests/wait_for_each_other.py", "4"]
    environment = {**os.environ, ranks.TIMEOUT: minutes, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode == 0) == ends_well, done.stderr


# --- one writer


def holder(folder: Path) -> subprocess.Popen:
    """Another process that holds the folder."""
    code = "import sys; from training.lock import only_writer\n"
    code += "with only_writer(sys.argv[1]): print('held', flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        cwd=ROOT,
        env={**os.environ, "SLURM_JOB_ID": "4711"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_writer_is_refused_and_told_who_writes(tmp_path):
    other = holder(tmp_path)
    try:
        with pytest.raises(Busy, match=rf"written by process {other.pid} on .*, Slurm job 4711; two jobs"):
            with only_writer(tmp_path, patience=0.2):
                pytest.fail("both hold it")
    finally:
        other.send_signal(signal.SIGKILL)
        other.wait()
    with only_writer(tmp_path, patience=0):  # the lock has ended with its process
        assert str(os.getpid()) in (tmp_path / lock.LOCK).read_text()


def test_a_writer_that_ends_in_time_is_waited_for(tmp_path):
    other = holder(tmp_path)
    other.terminate()
    with only_writer(tmp_path, patience=30):
        other.wait()


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(lock.UNSUPPORTED[0], "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    with only_writer(tmp_path):
        assert f"warning: {tmp_path} is on a file system without locks" in capsys.readouterr().err


# --- data in parts


def make(model, few, out, process, parts=data.synthetic_parts):
    prompts = PromptSet(few, {}, model)
    data.save_in_parts(
        out, lambda wanted: parts(model, prompts, 2, 3, wanted), 4, "same", prompts, 2, process
    )


def test_processes_share_the_data_and_an_interrupted_job_goes_on(model, few, tmp_path):
    once, out = tmp_path / "once.safetensors", tmp_path / "shared.safetensors"
    make(model, few, once, Process(0, 1, tmp_path))
    prompts = PromptSet(few, {}, model)
    assert torch.equal(load_file(once)["latents"], data.synthetic_latents(model, prompts, 2, 3))
    made = []

    def interrupted(model, prompts, per_prompt, batch, wanted):
        for number, latents in data.synthetic_parts(model, prompts, per_prompt, batch, wanted):
            made.append(number)
            yield number, latents
            if len(made) == 1:
                raise KeyboardInterrupt

    folder = tmp_path / ".shared.safetensors.parts"  # which the first process makes
    folder.mkdir()
    (folder / "identity").write_text("same")
    second = Process(1, 2, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        make(model, few, out, second, interrupted)
    assert made == [1] and not out.exists()
    make(model, few, out, second, interrupted)
    assert made == [1, 3]  # what was there is not made again
    make(model, few, out, Process(0, 2, tmp_path), interrupted)
    assert made == [1, 3, 0, 2] and out.read_bytes() == once.read_bytes()
    assert not list(tmp_path.glob(".*parts"))


def test_parts_of_other_data_are_dropped(model, few, tmp_path):
    out, stale = tmp_path / "x.safetensors", tmp_path / ".x.safetensors.parts"
    stale.mkdir()
    (stale / "identity").write_text("another")
    (stale / "000000.safetensors").write_text("broken")
    make(model, few, out, Process(0, 1, tmp_path))
    assert out.exists() and not stale.exists()


# --- embeddings


def counted(model, monkeypatch, broken_at: int = 0) -> list[int]:
    """Number of texts of each call to embed some; call ``broken_at`` is interrupted."""
    asked, encode = [], model.encode_prompts

    def count(texts):
        asked.append(len(texts))
        if len(asked) == broken_at:
            raise KeyboardInterrupt
        return encode(texts)

    monkeypatch.setattr(model, "encode_prompts", count)
    return asked


def test_processes_of_a_node_share_the_embedding(model, few, tmp_path, monkeypatch):
    whole = PromptSet(few, {}, model, batch=2).embeddings
    asked, folder = counted(model, monkeypatch), tmp_path / "node"
    folder.mkdir()
    PromptSet(few, {}, model, batch=2, ranks=Process(0, 2, folder))
    shared = PromptSet(few, {}, model, batch=2, ranks=Process(1, 2, folder)).embeddings
    assert asked == [
        1,
        2,
        1,
        1,
        2,
    ]  # an example for the sizes, then batches 0 and 2; an example, then batch 1
    assert all(torch.equal(shared.tensors[name], values) for name, values in whole.tensors.items())


def test_kept_embeddings_are_completed_and_used_again(model, few, tmp_path, monkeypatch):
    fresh = PromptSet(few, {}, model, batch=2).embeddings
    monkeypatch.setenv(KEPT, str(tmp_path / "kept"))
    monkeypatch.setattr(model, "config", model.config.model_copy(update={"revision": "0" * 40}))
    asked = counted(model, monkeypatch, broken_at=3)
    with pytest.raises(KeyboardInterrupt):
        PromptSet(few, {}, model, batch=2)
    PromptSet(few, {}, model, batch=2)
    assert asked == [1, 2, 2] + [1, 2, 1]  # the first batch is there
    again = PromptSet(few, {}, model, batch=2).embeddings
    assert asked[6:] == [1]
    assert all(torch.equal(again.tensors[name], values) for name, values in fresh.tensors.items())
