"""One process imports the model libraries; the jobs of this machine are forked from it.

Importing torch, diffusers, transformers and peft takes four seconds, a tenth of a small grid's whole time.
The workflow starts one server when it runs jobs on its own machine (``start``), and ``workflow.job`` hands
them over (``hand_over``). The server has imported libraries only: the suite's own code is read by each job,
as it is then.

A job is one message on a Unix socket in a folder that only this user may enter: module, arguments, working
directory and environment in JSON, together with the job's standard files. The answer is its exit status. A
job whose client has ended is ended too, and the server ends with the process that started it.
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
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

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


def start(environment: dict[str, str]) -> subprocess.Popen | None:
    """Start a server for the jobs of this process; None where none is wanted or possible.

    ``environment``: of the jobs, as far as libraries read it while they are imported. The server ends when
    the returned process's ``stdin`` is closed, at the latest with this process, which waits for it: so its
    jobs count among the resources that this process has used.
    """
    if FOLDER in os.environ or not hasattr(os, "pidfd_open"):
        return None
    folder = tempfile.mkdtemp(prefix="goodhart-")
    LOG.parent.mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener, open(LOG, "w") as log:
        try:
            os.close(os.pidfd_open(os.getpid()))  # Linux 5.3
            listener.bind(address(folder))  # a path of at most 107 characters
        except OSError:
            shutil.rmtree(folder)
            return None
        listener.listen(socket.SOMAXCONN)  # jobs wait for its imports instead of importing themselves
        os.environ[FOLDER] = folder
        server = subprocess.Popen(
            [sys.executable, "-m", "workflow.fork_server", folder, str(listener.fileno())],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=os.environ | environment | ONE_THREAD,
            pass_fds=[listener.fileno()],
            start_new_session=True,
        )
    atexit.register(server.wait)
    atexit.register(server.stdin.close)
    return server


def address(folder: str) -> str:
    """The socket for jobs of this Python environment: another one has other libraries."""
    return f"{folder}/{hashlib.sha256(sys.prefix.encode()).hexdigest()[:16]}"


def hand_over(module: str, arguments: list[str]) -> int | None:
    """Exit status of ``python -m module arguments``, run by the server; None where no server answers."""
    if not os.environ.get(FOLDER):
        return None
    with socket.socket(socket.AF_UNIX) as server:
        try:
            server.connect(address(os.environ[FOLDER]))
        except OSError:
            return None
        environment = {name: value for name, value in os.environ.items() if name != FOLDER}
        job = {"module": module, "arguments": arguments, "cwd": os.getcwd(), "environment": environment}
        try:
            socket.send_fds(server, [b" "], [0, 1, 2])
            server.sendall(json.dumps(job).encode() + b"\n")
            answer = server.makefile().readline()
        except ConnectionError:
            answer = ""
    if not answer:
        print(f"error: the fork server ended before the job; {LOG} says why", file=sys.stderr)
    return int(answer or 1)


def serve(listener: socket.socket, libraries: Iterable[str] = LIBRARIES) -> dict | None:
    """Fork a process per job until standard input ends; the job is returned, to that process alone."""
    gc.disable()
    for library in libraries:
        importlib.import_module(library)
    gc.freeze()  # what is imported stays, and looking through it would copy the shared memory
    gc.enable()
    signal.signal(signal.SIGCHLD, _reap)
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            return None
        client, _ = listener.accept()
        with client:
            if os.fork() == 0:
                listener.close()
                return _watch(client)


def _reap(*_) -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _watch(client: socket.socket) -> dict:
    """Fork the client's job, returned there; answer the client when it ends, end it when the client does."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, files, _, _ = socket.recv_fds(client, 1, 3)
    job = json.loads(client.makefile().readline())
    process = os.fork()
    if process == 0:
        os.setsid()
        for standard, file in enumerate(files):
            os.dup2(file, standard)
            os.close(file)
        return job
    ended = os.pidfd_open(process)
    ready, _, _ = select.select([client, ended], [], [])
    if ended not in ready:
        os.killpg(process, signal.SIGTERM)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if ended in ready:
        client.sendall(f"{status if status >= 0 else 128 - status}\n".encode())
    os._exit(0)


def run(job: dict) -> None:
    """``python -m module arguments`` in this process."""
    os.chdir(job["cwd"])
    os.environ.clear()
    os.environ.update(job["environment"])
    sys.path[0] = job["cwd"]
    sys.argv = [job["module"], *job["arguments"]]
    runpy.run_module(job["module"], run_name="__main__", alter_sys=True)


def main() -> None:
    folder, listener = sys.argv[1:]
    with socket.socket(fileno=int(listener)) as opened:
        job = serve(opened)
    if job is None:
        shutil.rmtree(folder)
    else:
        run(job)


if __name__ == "__main__":
    main()
