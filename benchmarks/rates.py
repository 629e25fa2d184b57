"""Images per second of rollout, update and reward, and their share of the machine's peak."""

from __future__ import annotations

import itertools

import torch

from base_models.base import POLICY
from benchmarks.measuring import flops, median_seconds, peak_flops
from benchmarks.setting import open_trainer
from training.rollout import decode


def measure(device: str, repeats: int) -> dict:
    """Rates of the default setting for plain GRPO and, for the update, GARDO.

    FLOPs are counted in the transformer's and the autoencoder's matrix products and convolutions; the
    share is of the peak in the precision that the transformer computes in.
    """
    trainer = open_trainer("grpo", device)
    model, c = trainer.model, trainer.config.training
    computing = getattr(torch, model.config.merged_dtype or model.config.dtype)
    peak = peak_flops(computing, device)
    collected = trainer.collector.collect(1, trainer.history)
    prompt_of, images_count = collected.prompt_of, len(collected.prompt_of)
    initial, noises = trainer.collector.draw_noise(images_count, slice(0, images_count), 1)
    images = decode(model, collected.trajectories.latents[-1], c.micro_batch)
    prepared = trainer.method.prepare(collected.rollout)
    iterations = itertools.count(2)

    @torch.no_grad()
    def roll_out():
        with model.using(POLICY):
            return trainer.collector.roll_out(prompt_of, initial, noises)

    calls = {
        "rollout": roll_out,
        "decoding": lambda: decode(model, collected.trajectories.latents[-1], c.micro_batch),
        "update": lambda: trainer.update(collected, prepared, next(iterations)),
    }
    rows = {}
    for name, call in calls.items():
        taken, counted = median_seconds(call, repeats), flops(call)
        rows[name] = {
            "images_per_second": images_count / taken,
            "gflop_per_image": counted / images_count / 1e9,
            "share_of_peak": counted / taken / peak,
        }
    taken = median_seconds(lambda: trainer.collector.score(images, prompt_of, {}), repeats)
    rows["reward (PP-OCR)"] = {"images_per_second": images_count / taken}
    return {"precision": str(computing).removeprefix("torch."), "peak_gflops": peak / 1e9, "rows": rows}
