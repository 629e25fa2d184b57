"""Starts training on what a job has been given: ``python -m workflow.launch --gpus 4 -- run FOLDER``.

One process is ``python -m training``; several on one node are ``accelerate launch``; several nodes are one
``accelerate launch`` on each, started by ``srun`` inside the job. What stands behind ``--`` goes to training.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from core.command import count, threads, whole_number
from workflow.job import announce, become

# Set by srun in every task: this node's number, and the address srun was called from: the first node's.
RANK, FIRST_NODE = "SLURM_PROCID", "SLURM_LAUNCH_NODE_IPADDR"


@dataclass(frozen=True)
class Launch:
    """What a job has been given; with ``processes`` 0 each GPU gets one, and without GPUs each node."""

    gpus: int = 0  # of all nodes
    processes: int = 0  # of all nodes
    nodes: int = 1
    threads: int = 1  # of one node

    def __post_init__(self) -> None:
        """Raises ``ValueError`` where the processes cannot be spread evenly."""
        if self.total % self.nodes:
            raise ValueError(f"{self.total} processes cannot be spread evenly over {self.nodes} nodes")
        if self.gpus and self.total > self.gpus:
            raise ValueError(f"{self.total} processes share {self.gpus} GPUs; each needs one of its own")

    @property
    def total(self) -> int:
        return self.processes or max(self.gpus, self.nodes)

    @property
    def threads_each(self) -> int:
        return max(1, self.threads * self.nodes // self.total)

    def command(self, arguments: list[str]) -> list[str]:
        """The command of a job of several processes."""
        if self.nodes == 1:
            return self._accelerate(arguments, ["--main_process_port", "0"])
        # fmt: off
        return [
            "srun", "--nodes", str(self.nodes), "--ntasks", str(self.nodes), "--ntasks-per-node", "1",
            "--cpus-per-task", str(self.threads), "--kill-on-bad-exit=1",
            sys.executable, "-m", "workflow.launch",
            "--gpus", str(self.gpus), "--processes", str(self.processes), "--nodes", str(self.nodes),
            "--threads", str(self.threads), "--port", str(free_port()), "--", *arguments,
        ]
        # fmt: on

    def command_of_node(self, arguments: list[str], port: int, environment: Mapping[str, str]) -> list[str]:
        """One node's part of a job on several; ``port``: of the first node, where all processes meet."""
        meeting = ["--main_process_ip", environment[FIRST_NODE], "--main_process_port", str(port)]
        return self._accelerate(arguments, [*meeting, "--machine_rank", environment[RANK]])

    def _accelerate(self, arguments: list[str], meeting: list[str]) -> list[str]:
        # fmt: off
        return [
            sys.executable, "-m", "accelerate.commands.launch",
            "--multi_gpu",  # means several processes; what each computes on, training decides
            "--num_processes", str(self.total), "--num_machines", str(self.nodes), *meeting,
            "--num_cpu_threads_per_process", str(self.threads_each),
            "--mixed_precision", "no", "--dynamo_backend", "no",
            "-m", "training", *self.training(arguments),
        ]
        # fmt: on

    def training(self, arguments: list[str]) -> list[str]:
        """Arguments of one process of ``python -m training``."""
        return [*arguments, "--threads", str(self.threads_each)]


def free_port() -> int:
    """A free port of this host, which is the first node: there Slurm starts the job."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m workflow.launch", description=__doc__.splitlines()[0])
    parser.add_argument("--gpus", type=whole_number(0, 10_000), default=0, help="GPUs of the job")
    parser.add_argument(
        "--processes", type=int, default=0, help="default: one per GPU, at least one per node"
    )
    parser.add_argument("--nodes", type=count, default=1)
    parser.add_argument("--threads", type=threads, default=1, help="processor threads of one node")
    parser.add_argument("--port", type=int, help="for one node's part of a job: where all processes meet")
    parser.add_argument("arguments", nargs="+", help="of python -m training, behind --")
    given = parser.parse_args()
    try:
        launch = Launch(given.gpus, given.processes, given.nodes, given.threads)
    except ValueError as error:
        sys.exit(f"error: {error}")
    if given.port is None:
        announce()
    if launch.total == 1:
        become("training", launch.training(given.arguments))
    if given.port is None:
        command = launch.command(given.arguments)
    else:
        command = launch.command_of_node(given.arguments, given.port, os.environ)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
