"""Images per second of rollout, update and reward, and their share of the machine's peak."""

from __future__ import annotations

import torch

from base_models.base import POLICY
from benchmarks.measuring import flops, median_seconds, peak_flops, peak_memory_mb
from benchmarks.setting import open_trainer
from processes.sampling import decode
from training.trainer import Trainer


def measure(device: str, repeats: int) -> dict:
    """Rates of plain GRPO on the default setting."""
    return of(open_trainer("grpo", device), repeats)


def of(trainer: Trainer, repeats: int) -> dict:
    """Rates of one trainer's iteration, and the peak of memory.

    FLOPs are counted in the transformer's and the autoencoder's matrix products, convolutions and
    attention; the share is of the peak in the precision that each computes in.
    """
    model, c, device = trainer.model, trainer.config.training, trainer.model.device
    process, experience = trainer.process, trainer.process.collect(1)
    trajectories, prompt_of, count = experience.trajectories, experience.prompt_of, experience.images
    initial, noises = process.draw_noise(1, slice(0, count))
    images = decode(model, trajectories.latents[-1], c.micro_batch)
    trajectories.velocities = None  # their graph could be used once

    @torch.no_grad()
    def roll_out():
        with model.using(POLICY):
            for rows in torch.arange(count).split(c.micro_batch):
                process.roll_out(prompt_of[rows], initial[rows], noises[:, rows])

    @torch.no_grad()
    def decode_all():
        decode(model, trajectories.latents[-1], c.micro_batch)

    transformer = model.merged_dtype or model.dtype
    calls = {
        "rollout": (roll_out, transformer),
        "decoding": (decode_all, torch.float32),
        "update": (lambda: trainer.update(experience), transformer),
    }
    peaks = {dtype: peak_flops(dtype, device) for _, dtype in calls.values()}
    rows = {}
    for name, (call, dtype) in calls.items():
        counted = flops(call)  # and warm-up
        taken = median_seconds(call, repeats, warm_up=0)
        rows[name] = {
            "images_per_second": count / taken,
            "gflop_per_image": counted / count / 1e9,
            "precision": str(dtype).removeprefix("torch."),
            "share_of_peak": counted / taken / peaks[dtype],
        }
    taken = median_seconds(lambda: process.scorer.score(images, prompt_of, monitored=False), repeats)
    rows[f"reward ({trainer.config.task_settings.proxy})"] = {"images_per_second": count / taken}
    return {
        "peak_gflops": {str(t).removeprefix("torch."): peak / 1e9 for t, peak in peaks.items()},
        "peak_memory_mb": peak_memory_mb(device),
        "seconds_per_image": sum(1 / rows[name]["images_per_second"] for name in calls),
        "rows": rows,
    }
