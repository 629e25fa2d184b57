"""The loop: rollout, rewards, advantages, gradient steps, checkpoint. One screen per phase."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

import torch
from tqdm import tqdm

import methods
import rewards
from base_models import open_base_model
from base_models.base import POLICY
from rewards.features import get_features
from training import checkpoint, provenance
from training.configuration import RunConfig
from training.data import DataSet
from training.files import replacing, write_json
from training.history import History
from training.model_card import model_card
from training.prompts import PromptSet
from training.rollout import Trajectories, decode, noise, sample_ode, sample_trajectories
from training.seeding import generator, seed_of
from training.update import (
    OLD,
    REFERENCE,
    Rows,
    accumulate_data_gradients,
    accumulate_forward_gradients,
    accumulate_gradients,
    rows_of,
)


class Trainer:
    """One run. ``run()`` resumes from the newest checkpoint and ends with adapter, history, provenance."""

    def __init__(self, config: RunConfig, folder: Path, data: Path | None = None, device: str = "cpu"):
        self.config, self.folder = config, Path(folder)
        self.started, self.started_cpu = time.monotonic(), provenance.cpu_seconds()
        settings, task = config.training, config.task_settings
        torch.manual_seed(seed_of("adapter", config.seed))  # LoRA's A matrices
        self.model = open_base_model(config.base_model, device)
        algorithm = methods.get(config.algorithm)
        dimensions = torch.Size(self.model.latent_shape).numel()
        self.method = algorithm(algorithm.Config(**config.parameters), latent_dimensions=dimensions)
        self.needs = self.method.needs
        self.model.add_adapter(POLICY)
        self.forward = self.needs.process == "forward"
        self.copies = [REFERENCE] * self.needs.adaptive_reference + [OLD] * self.forward
        for name in self.copies:
            self.model.add_adapter(name)
            self.model.copy_adapter(POLICY, name)
        self.model.transformer.set_adapter(POLICY)
        self.stochastic = range(settings.sde_first, settings.sde_first + settings.sde_steps)
        # The steps whose noise shares a method may train on.
        self.trainable = range(self.model.config.rollout_steps) if self.forward else self.stochastic
        self.parameters = self.model.adapter_parameters(POLICY)
        self.average = {k: p.detach().clone() for k, p in self.parameters.items()}
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.history = History()
        self.iteration, self.gradient_steps, self.images, self.reward_calls = 0, 0, 0, 0
        self.wall, self.cpu = 0.0, 0.0
        if settings.iterations:
            self.prompts = PromptSet(Path(task.prompts), task.tag_weights, self.model)
            if self.needs.process != "data":  # which scores no image
                self.proxy = rewards.get(task.proxy)
                self.monitor = [rewards.get(n) for n in task.monitor]
            self.auxiliary = [rewards.get(n) for n in task.auxiliary] if self.needs.auxiliary else []
            self.features = get_features(task.features) if self.needs.features else None
            self.data = DataSet(data, self.prompts) if self.needs.data else None
        self.model.release_text_encoders()

    # --- one iteration ---------------------------------------------------------------------------

    def rollout(self, iteration: int):
        """Images of this iteration: trajectories, prompt index per image, rewards, and logged numbers."""
        c, seed = self.config.training, self.config.seed
        drawn = self.prompts.draw(c.prompts_per_iteration, seed, iteration)
        index = torch.tensor(drawn).repeat_interleave(c.group_size)
        rng = generator("rollout", seed, iteration)
        shape = self.model.latent_shape
        if c.same_initial_noise:
            initial = noise((len(drawn), *shape), rng, self.model.device).repeat_interleave(c.group_size, 0)
        else:
            initial = noise((len(index), *shape), rng, self.model.device)
        common = {
            "steps": self.model.config.rollout_steps,
            "batch": c.micro_batch,
            "empty": self.prompts.empty,
        }
        embeddings = self.prompts.embeddings[index]
        with self.model.sampling(OLD if self.forward else POLICY):
            if self.forward:
                latents = sample_ode(self.model, embeddings, initial, **common)
                sigmas = self.model.sigmas(common["steps"]).to(self.model.device)
                trajectories = Trajectories(latents[None], latents[:0], latents[:0], sigmas)
            else:
                trajectories = sample_trajectories(
                    self.model,
                    embeddings,
                    initial,
                    sde=c.sde,
                    noise_level=c.noise_level,
                    stochastic=self.stochastic,
                    rng=rng,
                    **common,
                )
        images = decode(self.model, trajectories.latents[-1], c.micro_batch)
        self.images += len(images)
        return trajectories, index, images

    def evaluate_rollout(self, index: torch.Tensor, images: torch.Tensor, iteration: int):
        """Rewards and features the method asked for, and what is only watched."""
        metadata = [self.prompts.prompts[i] for i in index]
        texts = [p["prompt"] for p in metadata]
        proxy = self.proxy(images, texts, metadata)
        auxiliary = [r(images, texts, metadata) for r in self.auxiliary]
        self.reward_calls += len(images) * (1 + len(auxiliary))
        self.history.add(iteration, "reward/proxy_mean", proxy.mean())
        self.history.add(iteration, "reward/proxy_std", proxy.std(correction=0))
        for reward, scores in zip(self.auxiliary, auxiliary, strict=True):
            self.history.add(iteration, f"reward/{reward.name}_mean", scores.mean())
        if iteration % self.config.training.monitor_every == 0:
            for reward in self.monitor:
                scores = reward(images, texts, metadata)
                self.history.add(iteration, f"reward/{reward.name}_mean", scores.mean())
        return methods.Rollout(
            rewards=proxy,
            groups=index,
            auxiliary=torch.stack(auxiliary) if auxiliary else None,
            features=self.features(images) if self.features else None,
        )

    def rows(self, trajectories: Trajectories, index: torch.Tensor, part: torch.Tensor, rng) -> Rows:
        """Rows of one gradient step: ``part`` of the images at a random subset of the denoising steps."""
        c = self.config.training
        window = torch.tensor(self.trainable)
        chosen = window[torch.randperm(len(window), generator=rng)[: c.trained_steps]].sort().values
        rows = rows_of(part, chosen)
        if self.forward:
            shape = (len(rows.image), *self.model.latent_shape)
            rows.noise = noise(shape, rng, self.model.device)
        if self.data is not None:
            count = max(1, round(c.data_share * len(rows.image)))
            rows.data_rows = torch.randperm(len(rows.image), generator=rng)[:count].sort().values
            image = rows.image[rows.data_rows]
            rows.data_x0 = self.data.draw(index[image], rng).to(self.model.device)
            if self.method.config.data_noise == "rollout":
                rows.data_noise = trajectories.latents[0, image]
            else:
                rows.data_noise = noise(tuple(rows.data_x0.shape), rng, self.model.device)
        return rows

    def update(
        self, trajectories: Trajectories, index: torch.Tensor, prepared: methods.base.Prepared, iteration: int
    ):
        """``gradient_steps`` optimiser steps, each on its own share of the images."""
        c = self.config.training
        rng = generator("update", self.config.seed, iteration)
        order = torch.randperm(len(index), generator=rng)
        advantages = prepared.advantages.float().to(self.model.device)
        for number, part in enumerate(order.chunk(c.gradient_steps)):
            self.optimizer.zero_grad(set_to_none=True)
            common = (
                self.model,
                self.method,
                trajectories,
                self.prompts.embeddings[index],
                advantages,
                prepared.gate.to(self.model.device),
                self.rows(trajectories, index, part, rng),
            )
            batches = {"micro_batch": c.micro_batch, "empty": self.prompts.empty}
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
            terms = accumulate_data_gradients(
                self.model,
                self.method,
                self.prompts.embeddings[index[part]],
                x0,
                noise(tuple(x0.shape), rng, self.model.device),
                sigmas[torch.randint(len(sigmas), (len(part),), generator=rng)],
                micro_batch=c.micro_batch,
                empty=self.prompts.empty,
            )
            self.step(terms, iteration)
        self.follow()

    def step(self, terms: dict[str, float], iteration: int) -> None:
        """One optimiser step on the accumulated gradients, logged with their terms."""
        c = self.config.training
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), c.max_grad_norm)
        self.optimizer.step()
        self.gradient_steps += 1
        if self.method.after_update(terms):
            self.model.copy_adapter(POLICY, REFERENCE)
            self.history.add(iteration, "train/reference_reset", 1.0)
        for name, value in {**terms, "gradient_norm": norm}.items():
            self.history.add(iteration, f"train/{name}", value / c.gradient_steps)

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
        )
        for iteration in bar:
            if self.needs.process == "data":
                self.update_on_data(iteration)
                shown = "train/data_loss"
            else:
                trajectories, index, images = self.rollout(iteration)
                prepared = self.method.prepare(self.evaluate_rollout(index, images, iteration))
                for name, value in prepared.metrics.items():
                    self.history.add(iteration, f"train/{name}", value)
                self.update(trajectories, index, prepared, iteration)
                shown = "reward/proxy_mean"
            self.iteration = iteration
            value = self.history.value(iteration, shown)
            bar.set_postfix({shown.split("/")[1]: f"{value:.3f}"}, refresh=False)
            if iteration in self.config.snapshots:
                self.save_adapter(self.folder / "snapshots" / f"step_{iteration:06d}")
            if iteration % c.checkpoint_every == 0 and iteration < c.iterations:
                self.save_checkpoint()
        self.finish()

    def costs(self) -> dict[str, float]:
        """Seconds so far, over all resumed parts of the run."""
        return {
            "wall": self.wall + time.monotonic() - self.started,
            "cpu": self.cpu + provenance.cpu_seconds() - self.started_cpu,
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
        }
        checkpoint.save(self.folder / "checkpoint", self.iteration, tensors, numbers)

    @torch.no_grad()
    def resume(self) -> None:
        """Continue from the newest checkpoint of the same configuration; other checkpoints are dropped."""
        found = checkpoint.load_latest(self.folder / "checkpoint")
        if found is None or found[1]["hash"] != self.config.hash:
            for stale in ("checkpoint", "snapshots"):
                shutil.rmtree(self.folder / stale, ignore_errors=True)
            return
        tensors, numbers = found
        for key, parameter in self.parameters.items():
            parameter.copy_(tensors[f"policy.{key}"])
            self.average[key].copy_(tensors[f"average.{key}"])
            names = ("step", "exp_avg", "exp_avg_sq")
            self.optimizer.state[parameter] = {n: tensors[f"optimizer.{n}.{key}"] for n in names}
        for name in self.copies:
            for key, parameter in self.model.adapter_parameters(name).items():
                parameter.copy_(tensors[f"{name}.{key}"])
        self.method.load_state_dict(numbers["method"])
        self.iteration = numbers["iteration"]
        self.history = History(numbers["history"])
        self.gradient_steps, self.images, self.reward_calls = numbers["counts"]
        self.wall, self.cpu = numbers["costs"]["wall"], numbers["costs"]["cpu"]

    def finish(self) -> None:
        """Adapter and history first; provenance last, as the mark of a finished run."""
        self.save_adapter(self.folder / "adapter")
        self.history.save(self.folder / "history.parquet")
        costs = self.costs()
        write_json(
            self.folder / "provenance.json",
            {
                "run": self.config.run,
                "seed": self.config.seed,
                "config_hash": self.config.hash,
                "git": provenance.git_state(),
                "packages": provenance.packages(),
                "hardware": provenance.hardware(),
                "weights_sha256": self.config.weights,
                "wall_seconds": round(costs["wall"], 2),
                "cpu_seconds": round(costs["cpu"], 2),
                "device_seconds": round(costs["wall"], 2),
                "peak_memory_mb": round(provenance.peak_memory_mb(), 1),
                "images_generated": self.images,
                "reward_calls": self.reward_calls,
                "gradient_steps": self.gradient_steps,
                "iterations": self.iteration,
            },
        )
