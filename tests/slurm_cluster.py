"""A real Slurm on loopback for the tests: munge, slurmctld and one slurmd per node, in a folder of their own.

    python tests/slurm_cluster.py sinfo                    # any command, inside a fresh cluster
    python tests/slurm_cluster.py --nodes 2 srun hostname

Nothing is written outside the folder and nothing is left after the command. The nodes share the machine's
processors and have two pretended GPUs each, so that requests for GPUs pass through the scheduler.
"""

from __future__ import annotations

import argparse
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "sinfo", "scontrol")
SEARCHED = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
PRETENDED_GPUS = ("/dev/null", "/dev/zero")  # a GPU must name a device file; these do no harm
START_SECONDS, STOP_SECONDS = 30, 20

# No accounting database: the harder of the two kinds of cluster for a workflow.
CONFIGURATION = """\
ClusterName=local
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
AuthInfo=socket={root}/munge.socket
CredType=cred/munge
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=1,sched_min_interval=100000,bf_interval=5
ReturnToService=2
MinJobAge=36000
MessageTimeout=60
KillWait=5
InactiveLimit=0
GresTypes=gpu
{nodes}
PartitionName=main Nodes=ALL Default=YES DefaultTime=10 MaxTime=1440 State=UP
PartitionName=gpu Nodes=ALL DefaultTime=10 MaxTime=1440 State=UP
"""


def missing() -> str:
    """Why there can be no cluster here, or an empty string."""
    absent = [name for name in PROGRAMS if not shutil.which(name, path=SEARCHED)]
    return f"not installed: {', '.join(absent)} (Debian: slurm-wlm, munge)" if absent else ""


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


class Cluster:
    """``with Cluster() as cluster``; run Slurm's commands with ``env=cluster.environment``."""

    def __init__(self, nodes: int = 1):
        self.names = [f"node{i}" for i in range(nodes)]
        self.daemons: list[subprocess.Popen] = []

    def __enter__(self) -> Cluster:
        # munged wants a path that everyone may enter, and a socket's path must be short.
        self.root = Path(tempfile.mkdtemp(prefix="slurm-"))
        self.root.chmod(0o755)
        try:
            self._configure()
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def _configure(self) -> None:
        for folder in ("state", "spool", "log", "bin"):
            (self.root / folder).mkdir()
        key = self.root / "munge.key"
        key.touch(0o600)
        key.write_bytes(os.urandom(128))
        processors = os.cpu_count()
        pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
        memory = int(0.9 * pages * page / 2**20)
        controller, *ports = free_ports(1 + len(self.names))
        lines = [
            f"NodeName={name} NodeHostname={socket.gethostname()} NodeAddr=127.0.0.1 Port={port}"
            f" CPUs={processors} RealMemory={memory} Gres=gpu:pretended:{len(PRETENDED_GPUS)} State=UNKNOWN"
            for name, port in zip(self.names, ports, strict=True)
        ]
        self.configuration = self.root / "slurm.conf"
        self.configuration.write_text(
            CONFIGURATION.format(
                host=socket.gethostname().split(".")[0],
                port=controller,
                root=self.root,
                user=getpass.getuser(),
                nodes="\n".join(lines),
            )
        )
        gpus = [
            f"NodeName={name} Name=gpu Type=pretended File={f}" for name in self.names for f in PRETENDED_GPUS
        ]
        (self.root / "gres.conf").write_text("\n".join(gpus) + "\n")
        (self.root / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        # Job steps lose SLURM_CONF, so an srun started in one must be told where this cluster is.
        srun = self.root / "bin/srun"
        real = shutil.which("srun", path=SEARCHED)
        srun.write_text(f'#!/bin/sh\nSLURM_CONF={self.configuration} exec {real} "$@"\n')
        srun.chmod(0o755)
        outside = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_", "SRUN_"))}
        self.environment = outside | {
            "SLURM_CONF": str(self.configuration),
            "PATH": f"{self.root / 'bin'}{os.pathsep}{SEARCHED}",
        }

    def _start(self) -> None:
        # In the foreground, as children: they can be waited for and need no pid file.
        socket_path, root = self.root / "munge.socket", self.root
        # fmt: off
        self._daemon(
            "munged", "--foreground", "--num-threads=2",
            f"--key-file={root}/munge.key", f"--socket={socket_path}", f"--pid-file={root}/munged.pid",
            f"--log-file={root}/log/munged.log", f"--seed-file={root}/munge.seed",
        )
        # fmt: on
        self._wait(socket_path.exists)
        self._daemon("slurmctld", "-D")
        for name in self.names:
            self._daemon("slurmd", "-D", "-N", name)
        idle = ["sinfo", "--noheader", "--Node", "--partition=main", "--states=idle"]
        self._wait(lambda: len(self.output(*idle, check=False).splitlines()) == len(self.names))

    def _daemon(self, *command: str) -> None:
        log = open(self.root / "log" / f"{command[0]}-{len(self.daemons)}.log", "w")
        program = shutil.which(command[0], path=SEARCHED)
        with log:
            self.daemons.append(
                subprocess.Popen(
                    ["setpriv", "--pdeathsig", "TERM", program, *command[1:]],  # ends with us, come what may
                    env=self.environment,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C is for the command inside, not for the cluster
                )
            )

    def _wait(self, ready) -> None:
        end = time.monotonic() + START_SECONDS
        while not ready():
            dead = [d.args[3] for d in self.daemons if d.poll() is not None]
            if dead or time.monotonic() > end:
                logs = "\n".join(f"{p}:\n{p.read_text()[-2000:]}" for p in (self.root / "log").iterdir())
                raise RuntimeError(f"Slurm did not start ({', '.join(dead) or 'time is up'})\n{logs}")
            time.sleep(0.1)

    def output(self, *command: str, check: bool = True) -> str:
        """What one of Slurm's commands prints."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
        return done.stdout

    def jobs(self) -> list[str]:
        """Ids of all jobs that wait or run."""
        return self.output("squeue", "--noheader", "--format=%i").split()

    def drain(self) -> None:
        """Cancel every job and wait until none is left."""
        end = time.monotonic() + STOP_SECONDS
        while self.jobs() and time.monotonic() < end:
            self.output("scancel", *self.jobs(), check=False)
            time.sleep(0.5)

    def processes(self) -> list[int]:
        """Everything that was started inside the cluster and still lives: its ``PATH`` gives it away."""
        mark, found = os.fsencode(self.root / "bin"), []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
            except OSError:  # ended meanwhile, or another user's
                continue
        return found

    def stop(self) -> None:
        if len(self.daemons) > 1:
            self.drain()
        for daemon in reversed(self.daemons):
            daemon.terminate()
            try:
                daemon.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        for process in self.processes():  # of a job that outlived its end
            os.kill(process, signal.SIGKILL)
        shutil.rmtree(self.root)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    if reason := missing():
        sys.exit(reason)
    with Cluster(arguments.nodes) as cluster:
        return subprocess.run(arguments.command, env=cluster.environment).returncode


if __name__ == "__main__":
    sys.exit(main())
