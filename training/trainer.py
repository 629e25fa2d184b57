"""The loop: collect experience, gradient steps, checkpoint. What is collected, and how, is the process's."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

import torch
from tqdm import tqdm

import methods
import processes
from base_models import open_base_model
from base_models.base import ADAPTER_FILE
from core.files import remove_leftovers, replacing, write_json
from core.finite import check_finite
from core.seeding import seed_of
from core.settings import ConfigError
from methods import Loss
from processes.base import ANCHOR, REFERENCE, Experience
from runs.configuration import RunConfig, load_run
from training import checkpoint, provenance
from training.adapters import Adapters, official_decay
from training.data import DataSet
from training.history import History
from training.model_card import model_card
from training.optimiser import Optimiser
from training.prompts import PromptSet
from training.ranks import Ranks


class Trainer:
    """One run. ``run()`` resumes from the newest checkpoint and ends with adapter, history, provenance."""

    def __init__(self, config: RunConfig, folder: Path, data: Path | None = None, device: str = "cpu"):
        self.config, self.folder = config, Path(folder)
        self.started, self.started_cpu = time.monotonic(), provenance.cpu_seconds()
        self.ranks = Ranks(device)
        settings = config.training
        self.ranks.share(settings.prompts_per_iteration * settings.group_size)  # or raise, at once
        if settings.data != "none" and data is None:
            raise ConfigError(f"{config.run} trains on data: give the file of its latents with --data")
        start = self.folder.parent / config.start.run if config.start else None
        if start and load_run(start).hash != config.start.hash:
            raise ConfigError(f"{start} holds another configuration than the one this run was resolved for")
        if start:
            provenance.check_file(start, start / "adapter" / ADAPTER_FILE)
        torch.manual_seed(seed_of("adapter", config.seed))  # LoRA's A matrices
        self.model = open_base_model(config.base_model, self.ranks.device)
        algorithm = methods.get(config.algorithm)
        dimensions = torch.Size(self.model.latent_shape).numel()
        self.method = algorithm(algorithm.Config(**config.parameters), latent_dimensions=dimensions)
        needs = self.method.config.needs()
        process = processes.get(needs.process)
        copies = [*[REFERENCE] * needs.adaptive_reference, *[ANCHOR] * needs.anchor, *process.copies]
        scale = config.start.scale if config.start else 1.0
        self.adapters = Adapters(self.model, copies, start and start / "adapter", scale)
        scaled = config.base_model.dtype == "float16"
        self.optimiser = Optimiser(self.adapters.parameters, settings, self.ranks, scaled)
        self.history = History()
        self.iteration, self.images, self.reward_calls = 0, 0, 0
        self.wall, self.cpu, self.memory = 0.0, 0.0, 0.0
        self.git = provenance.git_state()  # now: what is edited while the run lasts is not what it runs
        if settings.iterations:
            task = config.task_settings
            prompts = PromptSet(Path(task.prompts), task.tag_weights, self.model, ranks=self.ranks)
            self.model.release_text_encoders()  # before the rewards want their memory
            latents = DataSet(data, prompts) if needs.data else None
            self.process = process(config, self.method, self.model, prompts, self.ranks, latents)

    # --- one iteration ---------------------------------------------------------------------------

    def iterate(self, iteration: int) -> None:
        """Collect and learn."""
        experience = self.process.collect(iteration)
        self.images += experience.images
        self.reward_calls += experience.reward_calls
        for name, value in experience.logged.items():
            self.history.add(iteration, name, value)
        before = self.adapters.snapshot()
        self.update(experience)
        self.history.add(iteration, "train/policy_distance", self.adapters.distance(before))

    def update(self, experience: Experience) -> None:
        """Every gradient step of an iteration; then the copies that follow the policy move."""
        for batches in self.process.gradient_steps(experience):
            self.optimiser.zero_grad()
            losses = [self.optimiser.backward(self.method.loss(batch)) for batch in batches]
            self.step(Loss.total(losses), experience.iteration)
        self.process.follow(self.optimiser.steps)
        if self.config.training.ema_schedule == "iteration":
            self.adapters.move_average(self.config.training.ema_decay)

    def step(self, loss: Loss, iteration: int) -> None:
        """One optimiser step on the gradients of all ranks, logged with the terms of their losses."""
        loss = Loss.total(self.ranks.gather_objects(loss))
        terms = {**loss.logged, **self.optimiser.step(f"{self.config.run}, iteration {iteration}")}
        if self.config.training.ema_schedule == "official_code":
            decay = self.config.training.ema_decay
            self.adapters.move_average(official_decay(decay, self.optimiser.steps))
        if self.method.after_update(loss.steering):
            self.adapters.reset_reference()
            self.history.add(iteration, "train/reference_reset", 1.0)
        for name, value in terms.items():
            self.history.add(iteration, f"train/{name}", value / self.config.training.gradient_steps)

    # --- the run ---------------------------------------------------------------------------------

    def run(self) -> None:
        c = self.config.training
        self.resume()
        bar = tqdm(
            range(self.iteration + 1, c.iterations + 1),
            desc=self.config.run,
            initial=self.iteration,
            total=c.iterations,
            unit="iteration",
            mininterval=1 if sys.stderr.isatty() else 10,
            disable=not self.ranks.main,
        )
        for iteration in bar:
            self.iterate(iteration)
            self.iteration = iteration
            shown = self.process.shown
            value = self.history.value(iteration, shown)
            bar.set_postfix({shown.split("/")[1]: f"{value:.3f}"}, refresh=False)
            if self.ranks.main and iteration in self.config.snapshots:
                self.save_adapter(self.folder / "snapshots" / f"step_{iteration:06d}")
            if self.ranks.main and iteration % c.checkpoint_every == 0 and iteration < c.iterations:
                self.save_checkpoint()
        self.finish()

    def costs(self) -> dict[str, float]:
        """Seconds and peak memory (MB) so far, over all resumed parts of the run."""
        return {
            "wall": self.wall + time.monotonic() - self.started,
            "cpu": self.cpu + provenance.cpu_seconds() - self.started_cpu,
            "memory": max(self.memory, provenance.peak_memory_mb()),
        }

    def save_adapter(self, folder: Path) -> None:
        """The averaged weights in the diffusers LoRA format."""
        check_finite(self.adapters.average, f"{self.config.run}, iteration {self.iteration}")
        with replacing(folder) as temporary:
            self.model.save_lora(temporary, self.adapters.average)
            (temporary / "README.md").write_text(model_card(self.config, self.iteration, folder))

    def save_checkpoint(self) -> None:
        numbers = {
            "hash": self.config.hash,
            "iteration": self.iteration,
            "method": self.method.state_dict(),
            "history": self.history.rows,
            "counts": [self.optimiser.steps, self.images, self.reward_calls],
            "costs": self.costs(),
            "git": self.git,
        }
        tensors = {**self.adapters.state_dict(), **self.optimiser.state_dict()}
        check_finite(tensors, f"{self.config.run}, iteration {self.iteration}")
        checkpoint.save(self.folder / "checkpoint", self.iteration, tensors, numbers)

    def resume(self) -> None:
        """Continue from the newest checkpoint of the same configuration; other checkpoints are dropped."""
        if self.ranks.main:
            for folder in (self.folder, self.folder / "checkpoint", self.folder / "snapshots"):
                remove_leftovers(folder)
        found = checkpoint.load_latest(self.folder / "checkpoint")
        self.ranks.wait()  # before the first one may write
        if found is None or found[1]["hash"] != self.config.hash:
            if self.ranks.main:
                for stale in ("checkpoint", "snapshots"):
                    shutil.rmtree(self.folder / stale, ignore_errors=True)
            return
        tensors, numbers = found
        self.adapters.load_state_dict(tensors)
        self.optimiser.load_state_dict(tensors)
        self.method.load_state_dict(numbers["method"])
        self.iteration = numbers["iteration"]
        self.history = History(numbers["history"])
        self.optimiser.steps, self.images, self.reward_calls = numbers["counts"]
        self.wall, self.cpu, self.memory = (numbers["costs"][name] for name in ("wall", "cpu", "memory"))
        self.git = provenance.git_of_both(numbers["git"], self.git)

    def finish(self) -> None:
        """Adapter and history first; provenance last, as the mark of a finished run."""
        costs = self.ranks.gather_objects(self.costs())
        if not self.ranks.main:
            return
        self.save_adapter(self.folder / "adapter")
        self.history.save(self.folder / "history.parquet")
        wall = costs[0]["wall"]
        write_json(
            self.folder / "provenance.json",
            {
                "files": provenance.digests(self.folder),
                "run": self.config.run,
                "seed": self.config.seed,
                "config_hash": self.config.hash,
                "git": self.git,
                "packages": provenance.packages(),
                "hardware": provenance.hardware(),
                "precision": str(self.model.merged_dtype or self.model.dtype).removeprefix("torch."),
                "weights_sha256": self.config.weights,
                "processes": self.ranks.count,
                "wall_seconds": round(wall, 2),
                "cpu_seconds": round(sum(c["cpu"] for c in costs), 2),
                "device_seconds": round(wall * self.ranks.count, 2),
                "peak_memory_mb": round(max(c["memory"] for c in costs), 1),
                "images_generated": self.images,
                "reward_calls": self.reward_calls,
                "gradient_steps": self.optimiser.steps,
                "iterations": self.iteration,
            },
        )
