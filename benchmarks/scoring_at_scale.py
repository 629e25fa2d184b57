"""``python -m benchmarks.scoring_at_scale``: memory and time of scoring 10,000 images with twelve metrics.

Images are synthetic, and cheap stand-ins take the places of the metrics: what is measured is how the suite
hands images to metrics, not what a metric costs. ``anonymous`` is memory that only this process can give
back; ``file`` are pages of the image file, which the system drops when somebody needs room.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

from core.command import count
from evaluation import images
from evaluation.configuration import SuiteConfig
from evaluation.score import CHUNK_BYTES, ScoredFile, score_files
from methods.maths.diversity import DIVERSITY
from rewards.base import Reward

METRICS = 12
PARTS = {"RssAnon": "anonymous", "RssFile": "file"}


class StandIn(Reward):
    """Mean of one corner: reads an image and computes next to nothing."""

    name, scale, licence = "stand-in", "0 to 1", "Apache-2.0 (this repository)"

    def score(self, images, prompts, metadata):
        return images[:, :, :8, :8].mean((1, 2, 3))


def encode(images: torch.Tensor) -> torch.Tensor:
    """Features (N, 48): the image in 4 x 4 pixels."""
    return torch.nn.functional.adaptive_avg_pool2d(images, 4).flatten(1)


def write_images(path: Path, count: int, side: int, per_prompt: int) -> None:
    """``count`` images of noise as ``evaluation.sample`` stores them, written piece by piece."""
    rng = np.random.default_rng(0)
    noise = (rng.integers(256, size=(side, side, 3), dtype=np.uint8) for _ in range(count))
    images.write(path, noise, k=per_prompt, suite="suite", step=0, made_from="noise")


class Memory(threading.Thread):
    """The largest memory of this process while it runs, in MB, by kind."""

    def __init__(self):
        super().__init__(daemon=True)
        self.ended, self.peak = threading.Event(), dict.fromkeys(PARTS.values(), 0.0)

    def run(self) -> None:
        while not self.ended.wait(0.05):
            for line in Path("/proc/self/status").read_text().splitlines():
                name, _, value = line.partition(":")
                if name in PARTS:
                    kind = PARTS[name]
                    self.peak[kind] = max(self.peak[kind], int(value.split()[0]) / 1024)


def measure(count: int, side: int, per_prompt: int, chunk_bytes: int, folder: Path) -> dict:
    """Peak memory (MB) and seconds of scoring ``count`` images with all metrics and a diversity."""
    path = images.path_of(folder, "suite", 0)
    write_images(path, count, side, per_prompt)
    names = [f"metric_{number}" for number in range(METRICS)]
    suite = SuiteConfig(prompts="synthetic", metrics=names)
    prompts = [{"prompt": f"prompt {n}", "tag": "prompt", "include": []} for n in range(count // per_prompt)]
    file = ScoredFile(path, suite, "suite", 0, prompts, per_prompt)
    memory, start = Memory(), time.perf_counter()
    memory.start()
    with (
        patch("evaluation.score.CHUNK_BYTES", chunk_bytes),
        patch("evaluation.score.rewards.get", lambda _: StandIn()),
        patch("evaluation.score.get_features", lambda _: encode),
    ):
        (scored,) = score_files([file], {DIVERSITY: "stand-in"})
    seconds = time.perf_counter() - start
    memory.ended.set()
    memory.join()
    values = sum(v.numel() for _, v in scored.values())
    return {
        "images": count,
        "metrics": len(scored),
        "values": values,
        "file_gb": round(path.stat().st_size / 1e9, 2),
        "seconds": round(seconds, 1),
        **{f"{kind}_mb": round(value) for kind, value in memory.peak.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scoring_at_scale", description=__doc__)
    parser.add_argument("--images", type=count, nargs="+", default=[1000, 10_000])
    parser.add_argument("--side", type=count, default=512, help="pixels")
    parser.add_argument("--per-prompt", type=count, default=4)
    parser.add_argument(
        "--chunk-bytes", type=count, default=CHUNK_BYTES, help="of images handed over at a time"
    )
    parser.add_argument("--folder", type=Path, help="for the images, 7.9 GB for 10,000 of 512 px")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for images_in_all in arguments.images:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            measured = measure(
                images_in_all, arguments.side, arguments.per_prompt, arguments.chunk_bytes, Path(folder)
            )
        print(json.dumps(measured), flush=True)


if __name__ == "__main__":
    main()
