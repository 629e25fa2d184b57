"""``python -m workflow.job MODULE ARGUMENTS``: ``python -m MODULE ARGUMENTS``, forked where a server is."""

from __future__ import annotations

import os
import socket
import sys
import time

from workflow.fork_server import hand_over


def announce() -> None:
    """A line on standard error, which the log appends: whose attempt the lines below it are."""
    job = os.environ.get("SLURM_JOB_ID")
    attempt = f"{time.strftime('%Y-%m-%d %H:%M:%S %z')} on {socket.gethostname()}"
    print(f"--- {attempt}{f', Slurm job {job}' if job else ''}", file=sys.stderr, flush=True)


def become(module: str, arguments: list[str]) -> None:
    """Do what ``python -m module arguments`` does, in place of this process."""
    status = hand_over(module, arguments)
    if status is None:
        os.execv(sys.executable, [sys.executable, "-m", module, *arguments])
    sys.exit(status)


if __name__ == "__main__":
    announce()
    become(sys.argv[1], sys.argv[2:])
