"""One process imports the model libraries; the jobs of this machine are forked from it.

Importing torch, diffusers, transformers and peft takes five CPU seconds, and every run needs it twice: a
fifteenth of an OCR run of the default grid, and most of a run of the smoke grid.
The workflow starts one server when it runs jobs on its own machine (``start``), and ``workflow.job`` hands
them over (``hand_over``). The server has imported libraries only: the suite's own code is read by each job,
as it is then.

A job is one message on a Unix socket in a folder that only this user may enter: module, arguments, working
directory and environment in JSON, together with the job's standard files. The answers are that it has
started, and its exit status. A job whose client or server has ended is ended too, and the server ends with
the process that started it: a workflow that is killed leaves no job that writes on.
"""

from __future__ import annotations

import atexit
import gc
import hashlib
import importlib
import json
import os
import runpy
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from setproctitle import setproctitle

FOLDER = "GOODHART_FORK_SERVER"  # environment: where the socket lies; set but empty: no server
LOG = Path("logs/fork_server.log")
# Slow to import and needed by most jobs. None starts a thread, which a fork would lose: pandas and
# onnxruntime do. What is missing here a job imports itself.
LIBRARIES = (
    "torch._dynamo",
    "diffusers.loaders.single_file_utils",
    "diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3",
    "cv2",
)
# A job gets its number of threads as an argument; what libraries start while they are imported is one.
ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "NUMEXPR")}


def start(environment: dict[str, str], libraries: Iterable[str] = LIBRARIES) -> subprocess.Popen | None:
    """Start a server for the jobs of this process; None where none is wanted or possible.

    ``environment``: of the jobs, as far as ``libraries`` read it while they are imported. The server ends
    when the returned process's ``stdin`` is closed, at the latest with this process, which waits for it: so
    its jobs count among the resources that this process has used.
    """
    if FOLDER in os.environ or not hasattr(os, "pidfd_open"):
        return None
    folder = tempfile.mkdtemp(prefix="goodhart-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    try:
        LOG.parent.mkdir(exist_ok=True)
        with socket.socket(socket.AF_UNIX) as listener, open(LOG, "w") as log:
            os.close(os.pidfd_open(os.getpid()))  # Linux 5.3
            listener.bind(address(folder))  # a path of at most 107 characters
            listener.listen(socket.SOMAXCONN)  # jobs wait for its imports instead of importing themselves
            server = subprocess.Popen(
                [sys.executable, "-m", "workflow.fork_server", folder, str(listener.fileno()), *libraries],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=os.environ | environment | ONE_THREAD,
                pass_fds=[listener.fileno()],
                start_new_session=True,
            )
    except OSError:
        return None
    os.environ[FOLDER] = folder
    atexit.register(server.wait)
    atexit.register(server.stdin.close)
    return server


def address(folder: str) -> str:
    """The socket for jobs of this Python environment: another one has other libraries."""
    return f"{folder}/{hashlib.sha256(os.path.realpath(sys.prefix).encode()).hexdigest()[:16]}"


def hand_over(module: str, arguments: list[str]) -> int | None:
    """Exit status of ``python -m module arguments``, run by the server; None where no server starts it."""
    if not os.environ.get(FOLDER):
        return None
    with socket.socket(socket.AF_UNIX) as server:
        try:
            server.connect(address(os.environ[FOLDER]))
        except OSError:
            return None
        environment = {name: value for name, value in os.environ.items() if name != FOLDER}
        job = {"module": module, "arguments": arguments, "cwd": os.getcwd(), "environment": environment}
        answers, started, status = server.makefile(), "", ""
        with suppress(ConnectionError):
            socket.send_fds(server, [b" "], [0, 1, 2])
            server.sendall(json.dumps(job).encode() + b"\n")
            started = answers.readline()
        if not started:
            return None
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, lambda number, _: server.send(bytes([number])))
        with suppress(ConnectionError):
            status = answers.readline()
    if not status:
        print(f"error: nobody says how {module} ended", file=sys.stderr)
    return int(status or 1)


def serve(listener: socket.socket, libraries: Iterable[str]) -> dict | None:
    """Fork a process per job until standard input ends; the job is returned, to that process alone."""
    gc.disable()
    for library in libraries:
        importlib.import_module(library)
    gc.freeze()  # what is imported stays, and looking through it would copy the shared memory
    gc.enable()
    sys.stdout.flush()  # or every job says again what the libraries have said
    signal.signal(signal.SIGCHLD, _reap)
    server_ended, server = os.pipe()  # the second stays open in this process alone
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            os.close(server)
            return None
        client, _ = listener.accept()
        with client:
            if os.fork() == 0:
                listener.close()
                os.close(server)
                return _watch(client, server_ended)


def _reap(*_) -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _watch(client: socket.socket, server_ended: int) -> dict:
    """Fork the client's job, returned there; pass signals on and the exit status back.

    A job whose client or server has ended is ended; where the client has not waited, it does not start.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, files, _, _ = socket.recv_fds(client, 1, 3)
    job = json.loads(client.makefile().readline())
    client.sendall(b"started\n")
    process = os.fork()
    if process == 0:
        os.setpgid(0, 0)
        os.close(server_ended)
        for standard, file in enumerate(files):
            os.dup2(file, standard)
            os.close(file)
        return job
    os.setpgid(process, process)  # here too: either may be the first to need it
    ended = os.pidfd_open(process)
    signals = True
    while signals and ended not in (ready := select.select([client, ended, server_ended], [], [])[0]):
        signals = client.recv(1) if client in ready else b""
        os.killpg(process, signals[0] if signals else signal.SIGTERM)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    with suppress(ConnectionError):
        client.sendall(f"{status if status >= 0 else 128 - status}\n".encode())
    os._exit(0)


def run(job: dict) -> None:
    """``python -m module arguments`` in this process."""
    # What ps shows instead of this module; first, as the title takes the place of the environment.
    setproctitle(shlex.join(["python", "-m", job["module"], *job["arguments"]]))
    os.chdir(job["cwd"])
    os.environ.clear()
    os.environ.update(job["environment"])
    sys.path[0] = job["cwd"]
    sys.argv = [job["module"], *job["arguments"]]
    sys.stdout.reconfigure(line_buffering=sys.stdout.isatty())
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # as in a new process; Python's own does so by itself
    runpy.run_module(job["module"], run_name="__main__", alter_sys=True)


def main() -> None:
    folder, listener, *libraries = sys.argv[1:]
    with socket.socket(fileno=int(listener)) as opened:
        job = serve(opened, libraries)
    if job is not None:
        run(job)
        return
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(ChildProcessError):
        while True:
            os.wait()


if __name__ == "__main__":
    main()
