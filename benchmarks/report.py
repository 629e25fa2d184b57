"""Measurements as Markdown tables, and the files they are kept in."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.setting import BASE, RESOLUTION_MODEL
from core.files import write_json, write_text


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _rates(part: dict) -> str:
    rows = [
        [
            name,
            f"{row['images_per_second']:.3g}",
            f"{row['gflop_per_image']:.3g}" if "gflop_per_image" in row else "–",
            f"{row['share_of_peak']:.0%} ({row['precision']})" if "share_of_peak" in row else "–",
        ]
        for name, row in part["rows"].items()
    ]
    peaks = ", ".join(f"{value:.0f} in {dtype}" for dtype, value in part["peak_gflops"].items())
    text = f"Peak of a matrix product, GFLOP/s: {peaks}. Peak memory {part['peak_memory_mb']:.0f} MB.\n\n"
    text += f"Rollout, decoding and update of one image: {part['seconds_per_image']:.3g} s.\n\n"
    return text + _table(["one iteration's", "images/s", "GFLOP per image", "share of the peak"], rows)


def _loops(part: dict) -> str:
    rows = [
        [
            name,
            f"{row['straight_seconds']:.2f}",
            f"{row['suite_seconds']:.2f}",
            f"{row['ratio']:.2f}×",
            f"{row['exact_ratio']:.2f}×",
            f"{row['gradient_difference']:.0e}",
            f"{row['gradient_difference_as_timed']:.1%}",
        ]
        for name, row in part.items()
    ]
    header = [
        "iteration of",
        "straight loop, s",
        "suite, s",
        "ratio of pairs",
        "ratio, suite in fp32",
        "gradients apart, fp32",
        "gradients apart, as timed",
    ]
    return _table(header, rows)


def _methods(part: dict) -> str:
    rows = [[name, f"{r['seconds']:.2f}", f"{r['relative_to_grpo']:.2f}×"] for name, r in part.items()]
    return _table(["method", "s per iteration", "relative to plain GRPO"], rows)


def _overhead(part: dict) -> str:
    rows = [
        ["start-up of a job, one image trained", f"{part['start_up_seconds']:.1f}"],
        ["the same in the workflow, which has imported", f"{part['start_up_in_workflow_seconds']:.1f}"],
        ["Snakemake's own time per job", f"{part['snakemake_seconds_per_job']:.2f}"],
    ]
    return _table(["overhead", "seconds"], rows)


def _scaling(part: dict) -> str:
    rows = []
    for key, found in part.items():
        points = found["points"]
        rows.append(
            [
                key,
                ", ".join(str(p[key]) for p in points),
                ", ".join(f"{p['seconds']:.2f}" for p in points),
                f"{found['time_exponent']:.2f}",
                ", ".join(f"{p['peak_memory_mb']:.0f}" for p in points),
                f"{found['memory_exponent']:.2f}",
                f"{found['memory_fixed_mb']:.0f} + {found['memory_per_unit_mb']:.2f} x",
            ]
        )
    header = ["what grows (x)", "values", "s per iteration", "exponent", "peak MB", "exponent", "line, MB"]
    models = f"Images grow on {RESOLUTION_MODEL}, everything else on {BASE}.\n\n"
    return models + _table(header, rows)


def _grids(part: dict) -> str:
    rows = [
        [name, str(r["cores"]), *(f"{r[k] / 60:.1f}" for k in ("seconds", "cpu_seconds"))]
        + [f"{r['peak_memory_mb']:.0f}"]
        for name, r in part.items()
    ]
    return _table(["grid", "cores", "minutes", "CPU minutes", "peak MB of a process"], rows)


PARTS = {
    "rates": ("Rates", _rates),
    "loops": ("Against the straight loop", _loops),
    "methods": ("Methods", _methods),
    "overhead": ("Overhead", _overhead),
    "scaling": ("Growth", _scaling),
    "grids": ("Whole grids", _grids),
}


def to_markdown(result: dict) -> str:
    """All measured parts; what was not measured is left out."""
    machine = ", ".join(f"{key}: {value}" for key, value in result["hardware"].items())
    parts = [f"# Measured\n\n{machine}. Commit {str(result['git']['commit'])[:7]}. Medians.\n"]
    if "setting" in result:
        parts.append(", ".join(f"{key}: {value}" for key, value in result["setting"].items()) + ".\n")
    for key, (title, render) in PARTS.items():
        if key in result:
            parts.append(f"## {title}\n\n{render(result[key])}")
    return "\n".join(parts)


def place(out: Path, machine: dict, device: str, suffix: str = "") -> Path:
    """Where results of this hardware are kept, without the ending."""
    label = machine["accelerator"] if device == "cuda" else machine["processor"]
    return out / (re.sub(r"[^A-Za-z0-9]+", "-", str(label)).strip("-").lower() + suffix)


def write(path: Path, result: dict) -> None:
    """``path``.json and ``path``.md."""
    write_json(path.with_name(f"{path.name}.json"), result)
    write_text(path.with_name(f"{path.name}.md"), to_markdown(result))
