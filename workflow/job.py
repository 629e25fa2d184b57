"""``python -m workflow.job MODULE ARGUMENTS``: ``python -m MODULE ARGUMENTS``, forked where a server is."""

from __future__ import annotations

import os
import sys

from workflow.fork_server import hand_over


def become(module: str, arguments: list[str]) -> None:
    """Do what ``python -m module arguments`` does, in place of this process."""
    status = hand_over(module, arguments)
    if status is None:
        os.execv(sys.executable, [sys.executable, "-m", module, *arguments])
    sys.exit(status)


if __name__ == "__main__":
    become(sys.argv[1], sys.argv[2:])
