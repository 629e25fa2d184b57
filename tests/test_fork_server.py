"""Jobs forked from one process that has imported the libraries: all comes over, and nothing outlives it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from workflow import fork_server

ROOT = Path(__file__).parent.parent
# What a job is told and what it has; exits with the status it is asked for.
PROBE = """
import os, sys
print(sys.argv[1:], os.getcwd(), os.environ["COLOUR"])
print("GOODHART_FORK_SERVER" in os.environ, "cv2" in sys.modules)
print("to standard error", file=sys.stderr)
print(sys.stdin.read())
sys.exit(int(sys.argv[1]))
"""
SLEEP = """
import os, pathlib, time
pathlib.Path("pid").write_text(str(os.getpid()))
try:
    time.sleep(600)
finally:
    pathlib.Path("cleaned").touch()
"""


@pytest.fixture
def server(monkeypatch, tmp_path, request):
    """A server, running, with the libraries of its parameter or one of them; jobs of this process find it."""
    monkeypatch.setenv(fork_server.FOLDER, "")  # so that its absence before the test comes back
    monkeypatch.delenv(fork_server.FOLDER)
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(fork_server, "LOG", tmp_path / "fork_server.log")
    # A shell starts what runs in the background with SIGINT ignored, which all its children inherit.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = fork_server.start({"COLOUR": "blue"}, getattr(request, "param", ["cv2"]))
    yield process
    signal.signal(signal.SIGINT, before)
    process.stdin.close()
    process.wait(30)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "probe.py").write_text(PROBE)
    (tmp_path / "sleep_long.py").write_text(SLEEP)
    return tmp_path


def job(folder: Path, module: str, *arguments: str, **environment: str) -> dict:
    """Arguments of subprocess for a job that runs in ``folder``."""
    command = [sys.executable, "-m", "workflow.job", module, *arguments]
    paths = {"PYTHONPATH": str(ROOT)}
    return {"args": command, "cwd": folder, "text": True, "env": os.environ | paths | environment}


def wait_for(condition, seconds: float = 30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def exists(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("served", [True, False])
def test_a_job_is_the_same_with_and_without_a_server(served, folder, request, monkeypatch):
    if served:
        request.getfixturevalue("server")
    else:
        monkeypatch.setenv(fork_server.FOLDER, "")
    given = job(folder, "probe", "3", "two words", COLOUR="red")
    done = subprocess.run(**given, input="typed", capture_output=True)
    assert done.returncode == 3
    assert done.stdout == f"['3', 'two words'] {folder} red\n{not served} {served}\ntyped\n"
    announced, *said = done.stderr.splitlines()
    assert announced.startswith("--- 20") and said == ["to standard error"]


@pytest.mark.parametrize("server", [fork_server.LIBRARIES], indirect=True, ids=["all libraries"])
def test_the_server_has_one_thread_and_ends_with_its_folder(server, folder):
    subprocess.run(**job(folder, "probe", "0", COLOUR=""), input="", capture_output=True, check=True)
    assert len(os.listdir(f"/proc/{server.pid}/task")) == 1
    place = os.environ[fork_server.FOLDER]
    assert os.stat(place).st_mode & 0o077 == 0
    server.stdin.close()
    assert server.wait(30) == 0 and not os.path.exists(place)
    status = subprocess.run(**job(folder, "probe", "4", COLOUR=""), input="", capture_output=True)
    assert status.returncode == 4  # by itself


def started_sleeping(folder: Path) -> tuple[subprocess.Popen, int]:
    """A client and the process of its job."""
    client, told = subprocess.Popen(**job(folder, "sleep_long")), folder / "pid"
    wait_for(lambda: told.exists() and told.read_text())
    process = int(told.read_text())
    assert process != client.pid and exists(process)
    return client, process


def test_ps_says_what_a_job_does(server, folder):
    client, process = started_sleeping(folder)
    shown = subprocess.run(["ps", "-o", "args=", "-p", str(process)], capture_output=True, text=True).stdout
    client.kill()
    client.wait()
    assert shown.strip() == "python -m sleep_long"


def test_a_job_ends_with_its_client(server, folder):
    client, process = started_sleeping(folder)
    client.kill()
    client.wait()
    wait_for(lambda: not exists(process))
    assert not (folder / "cleaned").exists()


def test_a_job_ends_with_the_process_that_started_the_server(server, folder):
    """Closing the server's input is what the end of that process does, however it ends."""
    client, process = started_sleeping(folder)
    server.stdin.close()
    assert client.wait(30) == 128 + signal.SIGTERM
    assert not exists(process)


def test_a_job_ends_with_its_server(server, folder):
    client, process = started_sleeping(folder)
    server.kill()
    assert client.wait(30) == 128 + signal.SIGTERM
    assert not exists(process)


def test_an_interrupted_job_cleans_up_before_its_client_ends(server, folder):
    client, process = started_sleeping(folder)
    client.send_signal(signal.SIGINT)
    assert client.wait(30) != 0
    assert not exists(process) and (folder / "cleaned").exists()


@pytest.mark.parametrize("server", [fork_server.LIBRARIES], indirect=True, ids=["all libraries"])
def test_a_job_whose_client_has_not_waited_is_not_started(server, folder):
    client = subprocess.Popen(**job(folder, "sleep_long"))
    time.sleep(0.5)  # the server imports until then
    client.kill()
    client.wait()
    subprocess.run(**job(folder, "probe", "0", COLOUR=""), input="", capture_output=True, check=True)
    assert not (folder / "pid").exists()


def test_a_killed_job_fails(server, folder):
    client, process = started_sleeping(folder)
    os.kill(process, signal.SIGKILL)
    assert client.wait(30) == 128 + signal.SIGKILL
    done = subprocess.run(**job(folder, "probe", "0", COLOUR=""), input="", capture_output=True)
    assert done.returncode == 0  # the next one is served


@pytest.mark.parametrize("server", [fork_server.LIBRARIES], indirect=True, ids=["all libraries"])
def test_a_job_that_was_not_started_runs_by_itself(server, folder):
    client = subprocess.Popen(**job(folder, "probe", "5", COLOUR="red"), stdin=subprocess.DEVNULL)
    time.sleep(0.5)  # it waits while the server imports
    server.kill()
    assert client.wait(30) == 5


@pytest.mark.parametrize("hindrance", ["no folder for the log", "told not to"])
def test_there_may_be_no_server(hindrance, monkeypatch, tmp_path):
    monkeypatch.setenv(fork_server.FOLDER, "")
    if hindrance != "told not to":
        monkeypatch.delenv(fork_server.FOLDER)
        (tmp_path / "file").touch()
        monkeypatch.setattr(fork_server, "LOG", tmp_path / "file" / "fork_server.log")
    assert fork_server.start({}) is None
    assert not os.environ.get(fork_server.FOLDER)
