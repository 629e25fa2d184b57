"""How seconds and memory of an iteration grow. Each point is a process of its own, whose peak is its own.

``python -m benchmarks.scaling cpu group_size=24 micro_batch=24 OUT`` writes one point.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measuring import exponent

# Each ladder changes one setting of the default and leaves the rest.
LADDERS: dict[str, list[int]] = {
    "group_size": [6, 12, 24, 48],
    "prompts_per_iteration": [3, 6, 12, 24],
    "rollout_steps": [5, 8, 16, 32],
    "image_size": [32, 48, 64],
    "micro_batch": [12, 24, 48, 96],
    "repetitions": [3, 9, 27, 81],
    "processes": [1, 2],
}
FIXED = {
    # Memory is bounded by the micro-batch, so it must not hide behind an iteration's images.
    "group_size": {"micro_batch": 36},
    "prompts_per_iteration": {"micro_batch": 36},
}


def point(
    settings: dict[str, int], device: str, launcher: tuple[str, ...] = (sys.executable,)
) -> dict[str, float]:
    """Seconds per iteration and peak memory in MB of one setting, measured in another process.

    Raises:
        RuntimeError: that process failed; the message ends with what it printed.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "point.json"
        arguments = [*(f"{k}={v}" for k, v in settings.items()), str(out)]
        command = [*launcher, "-m", "benchmarks.scaling", device, *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
        return json.loads(out.read_text())


def ladder(key: str, device: str) -> dict:
    """Points of one ladder, the fitted exponents of time and memory, and the line of memory."""
    points = []
    for value in LADDERS[key]:
        if key == "processes":
            launcher = (sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(value))
            measured = point({}, device, launcher)
        else:
            measured = point({key: value, **FIXED.get(key, {})}, device)
        points.append({key: value, **measured})
    values = [p[key] for p in points]
    memory = [p["peak_memory_mb"] for p in points]
    line = statistics.linear_regression(values, memory)
    return {
        "points": points,
        "time_exponent": exponent(values, [p["seconds"] for p in points]),
        "memory_exponent": exponent(values, memory),
        # The process's own memory hides growth from an exponent; a line tells the two apart.
        "memory_fixed_mb": line.intercept,
        "memory_per_unit_mb": line.slope,
    }


def measure(device: str, settings: dict[str, int], out: Path) -> None:
    """One point in this process, or in all those that torchrun has started."""
    import torch

    from benchmarks.measuring import peak_memory_mb, seconds
    from benchmarks.setting import BASE, RESOLUTION_MODEL, open_trainer

    torch.set_num_threads(1)
    repetitions = settings.pop("repetitions", 3)
    base = {k: settings.pop(k) for k in ("rollout_steps", "image_size") if k in settings}
    base_model = RESOLUTION_MODEL if "image_size" in base else BASE
    trainer = open_trainer("grpo", device, base=base, base_model=base_model, **settings)
    taken = [seconds(lambda i=i: trainer.iterate(i)) for i in range(1, repetitions + 2)]
    if trainer.ranks.main:
        result = {"seconds": statistics.median(taken[1:]), "peak_memory_mb": peak_memory_mb(device)}
        out.write_text(json.dumps(result))


if __name__ == "__main__":
    device, *pairs, path = sys.argv[1:]
    measure(device, {k: int(v) for k, v in (pair.split("=") for pair in pairs)}, Path(path))
