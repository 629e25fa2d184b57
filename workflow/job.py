"""``python -m workflow.job MODULE ARGUMENTS``: ``python -m MODULE ARGUMENTS``, forked where a server is."""

from __future__ import annotations

import itertools
import os
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

from workflow.fork_server import hand_over

ATTEMPTS = "attempts"  # folder beside a rule's logs


def announce() -> None:
    """Say on standard error whose attempt this is, and keep its log when it is tried again."""
    keep_log()
    job = os.environ.get("SLURM_JOB_ID")
    attempt = f"{time.strftime('%Y-%m-%d %H:%M:%S %z')} on {socket.gethostname()}"
    print(f"--- {attempt}{f', Slurm job {job}' if job else ''}", file=sys.stderr, flush=True)


def keep_log() -> None:
    """Give the log that standard error is written to a second name, ``attempts/<log>.<number>.log``.

    Snakemake removes a job's log before it tries the job again; what failed would not be known any more.
    """
    try:
        log = Path(os.readlink("/proc/self/fd/2"))
        if log.suffix != ".log" or not log.is_relative_to(Path.cwd() / "logs"):
            return
        folder = log.parent / ATTEMPTS
        folder.mkdir(exist_ok=True)
        for number in itertools.count(1):
            with suppress(FileExistsError):
                os.link(log, folder / f"{log.stem}.{number}.log")
                return
    except OSError as error:  # a file system without second names
        print(f"the log of this attempt is not kept: {error}", file=sys.stderr)


def become(module: str, arguments: list[str]) -> None:
    """Do what ``python -m module arguments`` does, in place of this process."""
    status = hand_over(module, arguments)
    if status is None:
        os.execv(sys.executable, [sys.executable, "-m", module, *arguments])
    sys.exit(status)


if __name__ == "__main__":
    announce()
    become(sys.argv[1], sys.argv[2:])
