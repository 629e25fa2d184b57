"""One training iteration written straight down, the yardstick of the suite's own loop.

It does what the public Flow-GRPO-style scripts do (flow_grpo ``scripts/train_sd3.py``): it samples with the
LoRA layers in place and in the precision of training, embeds the prompt of every image anew for the rollout
and for every trained step, takes the denoising steps of the update one at a time, and asks the reference
for every sample. Rewards, advantages and losses are the suite's own, so that both loops compute the same
gradients.
"""

from __future__ import annotations

import torch

from base_models import open_base_model
from base_models.base import Embeddings
from methods import Batch
from methods.base import Prepared
from methods.sde import STEPS
from training.rollout import Trajectories, decode
from training.trainer import Trainer
from training.update import REFERENCE


class StraightLoop:
    """Iterations of one trainer's run, for methods that train on denoising steps."""

    def __init__(self, trainer: Trainer):
        self.trainer, self.settings = trainer, trainer.config.training
        self.model, self.method = trainer.model, trainer.method
        # The trainer let go of its text encoders once its prompts were embedded.
        self.encoder = open_base_model(trainer.config.base_model, trainer.model.device)
        guided = self.model.classifier_free_guidance
        self.empty = self.encoder.encode_prompts([""]) if guided else None

    def iterate(self, iteration: int) -> None:
        """One whole iteration: gradients, optimiser step, moving average."""
        self.gradients(iteration)
        self.trainer.step({"kl_loss": 0.0}, iteration)
        self.trainer.follow()

    def gradients(self, iteration: int) -> None:
        """Rollout, rewards and gradients of one iteration."""
        collector, c = self.trainer.collector, self.settings
        drawn = self.trainer.prompts.draw(c.prompts_per_iteration, self.trainer.config.seed, iteration)
        prompt_of = torch.tensor(drawn).repeat_interleave(c.group_size)
        texts = [self.trainer.prompts.prompts[i]["prompt"] for i in prompt_of]
        t = self.roll_out(texts, *collector.draw_noise(len(texts), slice(0, len(texts)), iteration))
        images = decode(self.model, t.latents[-1], len(texts))
        scores = collector.score(images, prompt_of, monitored=False)
        scores = {name: values.cpu() for name, values in scores.items()}
        prepared = self.method.prepare(collector.as_rollout(scores, prompt_of, iteration))
        self.trainer.optimizer.zero_grad(set_to_none=True)
        for k in collector.stochastic:
            self.step_gradients(t, k, self.encoder.encode_prompts(texts), prepared)

    @torch.no_grad()
    def roll_out(self, texts: list[str], initial: torch.Tensor, noises: torch.Tensor) -> Trajectories:
        """Denoise all images together, stochastic on the window's steps."""
        prompts, stochastic = self.encoder.encode_prompts(texts), self.trainer.collector.stochastic
        sigmas = self.model.sigmas(self.model.config.rollout_steps).to(self.model.device)
        latents, means, log_probs = [initial], [], []
        for i in range(self.model.config.rollout_steps):
            x = latents[-1]
            v = self.model.velocity(x, sigmas[i].expand(len(x)), prompts, self.empty)
            if i in stochastic:
                noise = noises[stochastic.index(i)]
                taken = self.transition(v, x, sigmas, i, noise=noise)
                latents.append(taken.x_next)
                means.append(taken.mean)
                log_probs.append(taken.log_prob)
            else:
                latents.append(x + (sigmas[i + 1] - sigmas[i]) * v)
                means.append(latents[-1])
                log_probs.append(torch.zeros(len(x), device=x.device))
        source = torch.arange(len(initial)).expand(len(means), -1)
        return Trajectories(*map(torch.stack, (latents, means, log_probs)), sigmas, source)

    def transition(self, velocity, x, sigmas, k, **taken):
        c = self.settings
        steps = {"sigma_second": sigmas[1], "noise_level": c.noise_level}
        return STEPS[c.sde](velocity, x, sigmas[k], sigmas[k + 1], **steps, **taken)

    def step_gradients(self, t: Trajectories, k: int, prompts: Embeddings, prepared: Prepared) -> None:
        """Gradients of all images at denoising step ``k``."""
        method, x, x_next = self.method, t.latents[k], t.latents[k + 1]
        sigma, reference = t.sigmas[k].expand(len(x)), None
        if method.needs.reference != "none":
            with torch.no_grad(), self.model.using(REFERENCE if method.needs.adaptive_reference else None):
                v = self.model.velocity(x, sigma, prompts, self.empty)
            reference = self.transition(v, x, t.sigmas, k, x_next=x_next).mean
        advantages, gate = prepared.advantages.float().to(x.device), prepared.gate.to(x.device)
        asked = gate if method.needs.reference == "gated" else torch.ones_like(gate)
        v = self.model.velocity(x, sigma, prompts, self.empty)
        now = self.transition(v, x, t.sigmas, k, x_next=x_next)
        batch = Batch(
            x_next=x_next,
            mean=now.mean,
            std=now.std,
            noise_std=now.noise_std,
            log_prob=now.log_prob,
            old_mean=t.means[k],
            old_log_prob=t.log_probs[k],
            advantages=advantages,
            gate=gate,
            step=torch.full((len(x),), k),
            rows=len(x) * self.settings.trained_steps,
            gated_rows=int(prepared.gate.sum()) * self.settings.trained_steps,
            reference_rows=None if reference is None else asked,
            reference_mean=None if reference is None else reference[asked],
        )
        method.loss(batch)[0].backward()
