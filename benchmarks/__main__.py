"""``python -m benchmarks``: measure the suite on the machine at hand.

Writes ``benchmarks/results/<hardware>.json`` and the same as a table beside it. Parts: rates, loops, methods,
overhead, scaling; ``--grids`` adds whole grids in fresh clones. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks import loops, overhead, rates, scaling
from benchmarks.measuring import hardware
from benchmarks.report import place, to_markdown, write
from core.command import JOB_ENVIRONMENT, count, set_threads, threads
from training import provenance

TASKS = ("ocr", "counting")
COMPARED = ("grpo", "gardo")


def measure_loops(device: str, repeats: int) -> dict:
    pairs = [(task, method) for task in TASKS for method in COMPARED]
    return {
        f"{method}, {task}": loops.against_straight(method, task, device, repeats)
        for task, method in tqdm(pairs, desc="straight loop")
    }


def measure_methods(device: str, repeats: int) -> dict:
    rows = {name: (name, {}) for name in loops.method_names()}
    # What DiffusionNFT compares to: from a noise of its own for every image there is nothing to share.
    rows["grpo, no image shares a noise"] = "grpo", {"same_initial_noise": False}
    return {
        row: loops.against_grpo(method, device, repeats, **training)
        for row, (method, training) in tqdm(rows.items(), desc="methods")
    }


def measure_overhead(device: str, repeats: int) -> dict:
    return {
        "start_up_seconds": overhead.start_up(repeats, "training"),
        "start_up_in_workflow_seconds": overhead.start_up_in_workflow(repeats),
        "snakemake_seconds_per_job": overhead.per_job(repeats),
    }


def measure_scaling(device: str, repeats: int) -> dict:
    return {key: scaling.ladder(key, device) for key in tqdm(scaling.LADDERS, desc="scaling")}


PARTS = {
    "rates": rates.measure,
    "loops": measure_loops,
    "methods": measure_methods,
    "overhead": measure_overhead,
    "scaling": measure_scaling,
}


def same_code(path: Path, git: dict) -> dict:
    """What was measured before with this very code; nothing where it was another."""
    found = json.loads(path.read_text()) if path.exists() else {}
    return found if found.get("git") == git and not git["dirty"] else {}


def start_as_a_job() -> None:
    """Start anew in the environment of the workflow's jobs, which the allocator reads at the start."""
    if not JOB_ENVIRONMENT.items() <= os.environ.items():
        command = [sys.executable, "-m", "benchmarks", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, **JOB_ENVIRONMENT})


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--grids", nargs="*", default=[], metavar="CONFIG", help="config files to run whole")
    parser.add_argument("--cores", type=count, default=2, help="of the grids")
    parser.add_argument("--repeats", type=count, default=7)
    parser.add_argument("--threads", type=threads, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    set_threads(arguments.threads)

    machine = hardware(arguments.threads)
    path = place(arguments.out, machine, arguments.device)
    result = {
        "hardware": machine,
        "git": provenance.git_state(str(arguments.out)),
        "repeats": arguments.repeats,
    }
    result = same_code(path.with_name(f"{path.name}.json"), result["git"]) | result

    def keep() -> None:
        """What is measured stays, whatever comes after it."""
        write(path, result)

    # Grids first: of a process that has become large, its children's peak could not be told apart.
    for config in arguments.grids:
        result.setdefault("grids", {})[config] = overhead.grid(config, arguments.cores)
        keep()
    for name in arguments.only:
        result[name] = PARTS[name](arguments.device, arguments.repeats)
        keep()
    print(to_markdown(result))
    return 0


if __name__ == "__main__":
    start_as_a_job()
    sys.exit(main())
