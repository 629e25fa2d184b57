"""One job at a time writes a run: the others wait a little, then end with one line that names it."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = ".lock"
PATIENCE = 60  # seconds in which a job that is being ended may let go
UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class Busy(RuntimeError):
    """Another job writes the folder."""


@contextmanager
def only_writer(folder: Path, patience: float = PATIENCE) -> Iterator[None]:
    """Hold ``folder`` against other processes, on every node where its file system has locks.

    The lock ends with this process, however it ends. Raises ``Busy`` naming the job that holds it.
    """
    with open(Path(folder) / LOCK, "a+") as file:
        end = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    file.seek(0)
                    holder = file.read().strip() or "another process"
                    raise Busy(
                        f"{folder} is being written by {holder}; two jobs must not train one run"
                    ) from None
                time.sleep(min(1.0, patience / 10))
            except OSError as error:
                if error.errno not in UNSUPPORTED:
                    raise
                print(f"warning: {folder} is on a file system without locks ({error})", file=sys.stderr)
                break
        file.truncate(0)
        file.write(whoami() + "\n")
        file.flush()
        yield


def whoami() -> str:
    """This process for a reader of another node: host, process, and the Slurm job it belongs to."""
    job = os.environ.get("SLURM_JOB_ID")
    return f"process {os.getpid()} on {socket.gethostname()}" + (f", Slurm job {job}" if job else "")
