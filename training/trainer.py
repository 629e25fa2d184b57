"""The loop: rollout, rewards, advantages, gradient steps, checkpoint. One screen per phase."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

import torch
from tqdm import tqdm

import methods
from base_models import open_base_model
from base_models.base import POLICY
from training import checkpoint, provenance
from training.collect import Collected, Collector
from training.configuration import ConfigError, RunConfig, load_run
from training.data import DataSet
from training.files import replacing, write_json
from training.history import History
from training.model_card import model_card
from training.processes import Processes
from training.prompts import PromptSet
from training.rollout import noise
from training.seeding import generator, seed_of
from training.update import (
    OLD,
    REFERENCE,
    Experience,
    Rows,
    accumulate_data_gradients,
    accumulate_forward_gradients,
    accumulate_gradients,
    add_terms,
    rows_of,
)


@torch.no_grad()
def distance(parameters: dict[str, torch.Tensor], before: dict[str, torch.Tensor]) -> float:
    """Euclidean distance of two sets of weights."""
    return torch.stack([(p - before[k]).norm() for k, p in parameters.items()]).norm().item()


class Trainer:
    """One run. ``run()`` resumes from the newest checkpoint and ends with adapter, history, provenance."""

    def __init__(self, config: RunConfig, folder: Path, data: Path | None = None, device: str = "cpu"):
        self.config, self.folder = config, Path(folder)
        self.started, self.started_cpu = time.monotonic(), provenance.cpu_seconds()
        self.processes = Processes(device)
        settings, task = config.training, config.task_settings
        self.processes.share(settings.prompts_per_iteration * settings.group_size)  # or raise, at once
        if settings.data != "none" and data is None:
            raise ConfigError(f"{config.run} trains on data: give the file of its latents with --data")
        torch.manual_seed(seed_of("adapter", config.seed))  # LoRA's A matrices
        self.model = open_base_model(config.base_model, self.processes.device)
        algorithm = methods.get(config.algorithm)
        dimensions = torch.Size(self.model.latent_shape).numel()
        self.method = algorithm(algorithm.Config(**config.parameters), latent_dimensions=dimensions)
        needs = self.method.needs
        self.forward = needs.process == "forward"
        self.model.add_adapter(POLICY)
        if config.start:
            self.start_from(self.folder.parent / config.start.run)
        self.copies = [REFERENCE] * needs.adaptive_reference + [OLD] * self.forward
        for name in self.copies:
            self.model.add_adapter(name)
            self.model.copy_adapter(POLICY, name)
        self.model.transformer.set_adapter(POLICY)
        self.parameters = self.model.adapter_parameters(POLICY)
        self.average = {k: p.detach().clone() for k, p in self.parameters.items()}
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.history = History()
        self.iteration, self.gradient_steps, self.images, self.reward_calls = 0, 0, 0, 0
        self.wall, self.cpu, self.memory = 0.0, 0.0, 0.0
        self.git = provenance.git_state()  # now: what is edited while the run lasts is not what it runs
        if settings.iterations:
            self.prompts = PromptSet(
                Path(task.prompts), task.tag_weights, self.model, processes=self.processes
            )
        self.model.release_text_encoders()  # before the rewards want their memory
        if settings.iterations:
            self.data = DataSet(data, self.prompts) if needs.data else None
            if needs.process != "data":
                self.collector = Collector(config, self.model, self.prompts, needs, self.processes)
                # The steps whose noise shares a method may train on.
                steps = self.model.config.rollout_steps
                self.trainable = range(steps) if self.forward else self.collector.stochastic

    @torch.no_grad()
    def start_from(self, folder: Path) -> None:
        """Begin with the adapter of a finished run."""
        if load_run(folder).hash != self.config.start.hash:
            raise ConfigError(f"{folder} holds another configuration than the one this run was resolved for")
        self.model.read_adapter(folder / "adapter")

    # --- one iteration ---------------------------------------------------------------------------

    def rows(self, collected: Collected, gate: torch.Tensor, part: torch.Tensor, rng) -> Rows:
        """This process's rows of one gradient step: ``part`` of all images at a random subset of the steps.

        All numbers are drawn for all rows, so that they do not depend on the number of processes.
        """
        c = self.config.training
        window = torch.tensor(self.trainable)
        count = (c.forward_steps if self.forward else None) or c.trained_steps
        chosen = window[torch.randperm(len(window), generator=rng)[:count]].sort().values
        rows = rows_of(part, chosen, gate)
        shape = self.model.latent_shape
        if self.forward:
            rows.noise = noise((rows.total, *shape), rng, self.model.device)
        if self.data is not None:
            rows.data_total = max(1, round(c.data_share * rows.total))
            rows.data_rows = torch.randperm(rows.total, generator=rng)[: rows.data_total].sort().values
            caption = collected.prompt_of[rows.image[rows.data_rows]]
            rows.data_x0 = self.data.draw(caption, rng).to(self.model.device)
            if self.method.config.data_noise == "fresh":
                rows.data_noise = noise((rows.data_total, *shape), rng, self.model.device)
        rows = rows.share(self.processes.share(len(gate)))
        if self.data is not None and rows.data_noise is None:
            rows.data_noise = collected.trajectories.latents[0, rows.image[rows.data_rows]]
        return rows

    def update(self, collected: Collected, prepared: methods.base.Prepared, iteration: int) -> None:
        """``gradient_steps`` optimiser steps, each on its own share of the images."""
        c, device = self.config.training, self.model.device
        rng = generator("update", self.config.seed, iteration)
        share = self.processes.share(len(prepared.gate))
        experience = Experience(
            collected.trajectories,
            self.prompts.embeddings,
            collected.prompt_of[share],
            prepared.advantages.float()[share].to(device),
            prepared.gate[share].to(device),
        )
        batches = {"micro_batch": c.micro_batch, "empty": self.prompts.empty}
        order = torch.randperm(len(prepared.gate), generator=rng)
        for number, part in enumerate(order.chunk(c.gradient_steps)):
            self.optimizer.zero_grad(set_to_none=True)
            common = (self.model, self.method, experience, self.rows(collected, prepared.gate, part, rng))
            if self.forward:
                terms = accumulate_forward_gradients(*common, **batches)
            else:
                steps = {"sde": c.sde, "noise_level": c.noise_level, "on_policy": number == 0}
                terms = accumulate_gradients(*common, **steps, **batches)
            self.step(terms, iteration)
        self.follow()

    def update_on_data(self, iteration: int) -> None:
        """``gradient_steps`` optimiser steps on data rows of drawn prompts, as many as a rollout trains."""
        c = self.config.training
        rng = generator("update", self.config.seed, iteration)
        drawn = torch.tensor(self.prompts.draw(c.prompts_per_iteration, self.config.seed, iteration))
        index = drawn.repeat_interleave(c.group_size).repeat(c.trained_steps)
        sigmas = self.model.sigmas(self.model.config.rollout_steps)[:-1].to(self.model.device)
        for part in torch.randperm(len(index), generator=rng).chunk(c.gradient_steps):
            self.optimizer.zero_grad(set_to_none=True)
            x0 = self.data.draw(index[part], rng).to(self.model.device)
            eps = noise(tuple(x0.shape), rng, self.model.device)
            sigma = sigmas[torch.randint(len(sigmas), (len(part),), generator=rng)]
            mine = slice(self.processes.index, None, self.processes.count)
            terms = accumulate_data_gradients(
                self.model,
                self.method,
                self.prompts.embeddings[index[part][mine]],
                x0[mine],
                eps[mine],
                sigma[mine],
                data_total=len(part),
                micro_batch=c.micro_batch,
                empty=self.prompts.empty,
            )
            self.step(terms, iteration)
        self.follow()

    def step(self, terms: dict[str, float], iteration: int) -> None:
        """One optimiser step on the accumulated gradients of all processes, logged with their terms."""
        c = self.config.training
        for parameter in self.parameters.values():
            if parameter.grad is None:  # a process without rows
                parameter.grad = torch.zeros_like(parameter)
        self.processes.add_up([p.grad for p in self.parameters.values()])
        terms = add_terms(self.processes.gather_numbers(terms))
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), c.max_grad_norm)
        self.optimizer.step()
        self.gradient_steps += 1
        if self.method.after_update(terms):
            self.model.copy_adapter(POLICY, REFERENCE)
            self.history.add(iteration, "train/reference_reset", 1.0)
        logged = {**terms, "gradient_norm": norm, "signal_to_noise": self.signal_to_noise()}
        for name, value in logged.items():
            self.history.add(iteration, f"train/{name}", value / c.gradient_steps)

    def signal_to_noise(self) -> float:
        """Norm of AdamW's mean gradient over that of its root mean square, both bias-corrected.

        1 where all gradients of the last steps agree; noise alone gives sqrt((1 - b1) / (1 + b1)) = 0.23.
        """
        (b1, b2), states = self.optimizer.defaults["betas"], self.optimizer.state.values()
        mean, square = (
            sum(s[name].square().sum() if name == "exp_avg" else s[name].sum() for s in states)
            for name in ("exp_avg", "exp_avg_sq")
        )
        steps = self.gradient_steps
        corrected = (mean.sqrt() / (1 - b1**steps)) / (square / (1 - b2**steps)).sqrt().clamp(min=1e-20)
        return corrected.item()

    @torch.no_grad()
    def follow(self) -> None:
        """The old policy and the average move towards the policy."""
        if self.forward:
            self.model.copy_adapter(POLICY, OLD, keep=self.method.old_policy_decay(self.gradient_steps))
        for key, value in self.average.items():
            value.lerp_(self.parameters[key].detach(), 1 - self.config.training.ema_decay)

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
            disable=not self.processes.main,
        )
        for iteration in bar:
            if self.method.needs.process == "data":
                self.update_on_data(iteration)
                shown = "train/data_loss"
            else:
                collected = self.collector.collect(iteration, self.history)
                self.images += len(collected.prompt_of)
                self.reward_calls += len(collected.prompt_of) * self.collector.rewards_per_image
                prepared = self.method.prepare(collected.rollout)
                for name, value in prepared.metrics.items():
                    self.history.add(iteration, f"train/{name}", value)
                before = {k: p.detach().clone() for k, p in self.parameters.items()}
                self.update(collected, prepared, iteration)
                self.history.add(iteration, "train/policy_distance", distance(self.parameters, before))
                shown = "reward/proxy_mean"
            self.iteration = iteration
            value = self.history.value(iteration, shown)
            bar.set_postfix({shown.split("/")[1]: f"{value:.3f}"}, refresh=False)
            if self.processes.main and iteration in self.config.snapshots:
                self.save_adapter(self.folder / "snapshots" / f"step_{iteration:06d}")
            if self.processes.main and iteration % c.checkpoint_every == 0 and iteration < c.iterations:
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
        with replacing(folder) as temporary:
            self.model.save_lora(temporary, self.average)
            (temporary / "README.md").write_text(model_card(self.config, self.iteration, folder))

    def save_checkpoint(self) -> None:
        tensors = {f"policy.{k}": p.detach() for k, p in self.parameters.items()}
        tensors |= {f"average.{k}": v for k, v in self.average.items()}
        for name in self.copies:
            tensors |= {f"{name}.{k}": p.detach() for k, p in self.model.adapter_parameters(name).items()}
        for key, parameter in self.parameters.items():
            for name, value in self.optimizer.state[parameter].items():
                tensors[f"optimizer.{name}.{key}"] = value
        numbers = {
            "hash": self.config.hash,
            "iteration": self.iteration,
            "method": self.method.state_dict(),
            "history": self.history.rows,
            "counts": [self.gradient_steps, self.images, self.reward_calls],
            "costs": self.costs(),
            "git": self.git,
        }
        checkpoint.save(self.folder / "checkpoint", self.iteration, tensors, numbers)

    @torch.no_grad()
    def resume(self) -> None:
        """Continue from the newest checkpoint of the same configuration; other checkpoints are dropped."""
        found = checkpoint.load_latest(self.folder / "checkpoint")
        self.processes.wait()  # before the first one may write
        if found is None or found[1]["hash"] != self.config.hash:
            if self.processes.main:
                for stale in ("checkpoint", "snapshots"):
                    shutil.rmtree(self.folder / stale, ignore_errors=True)
            return
        tensors, numbers = found
        here = self.model.device
        for key, parameter in self.parameters.items():
            parameter.copy_(tensors[f"policy.{key}"])
            self.average[key].copy_(tensors[f"average.{key}"])
            self.optimizer.state[parameter] = {
                name: tensors[f"optimizer.{name}.{key}"].to(device)
                # AdamW counts its steps on the CPU.
                for name, device in (("step", "cpu"), ("exp_avg", here), ("exp_avg_sq", here))
            }
        for name in self.copies:
            for key, parameter in self.model.adapter_parameters(name).items():
                parameter.copy_(tensors[f"{name}.{key}"])
        self.method.load_state_dict(numbers["method"])
        self.iteration = numbers["iteration"]
        self.history = History(numbers["history"])
        self.gradient_steps, self.images, self.reward_calls = numbers["counts"]
        self.wall, self.cpu, self.memory = (numbers["costs"][name] for name in ("wall", "cpu", "memory"))
        self.git = provenance.git_of_both(numbers["git"], self.git)

    def finish(self) -> None:
        """Adapter and history first; provenance last, as the mark of a finished run."""
        costs = self.processes.gather_numbers(self.costs())
        if not self.processes.main:
            return
        self.save_adapter(self.folder / "adapter")
        self.history.save(self.folder / "history.parquet")
        wall = costs[0]["wall"]
        write_json(
            self.folder / "provenance.json",
            {
                "run": self.config.run,
                "seed": self.config.seed,
                "config_hash": self.config.hash,
                "git": self.git,
                "packages": provenance.packages(),
                "hardware": provenance.hardware(),
                "precision": str(self.model.merged_dtype or self.model.dtype).removeprefix("torch."),
                "weights_sha256": self.config.weights,
                "processes": self.processes.count,
                "wall_seconds": round(wall, 2),
                "cpu_seconds": round(sum(c["cpu"] for c in costs), 2),
                "device_seconds": round(wall * self.processes.count, 2),
                "peak_memory_mb": round(max(c["memory"] for c in costs), 1),
                "images_generated": self.images,
                "reward_calls": self.reward_calls,
                "gradient_steps": self.gradient_steps,
                "iterations": self.iteration,
            },
        )
