"""One training iteration written straight down, the yardstick of the suite's own loop.

It does what the public Flow-GRPO-style scripts do (flow_grpo ``scripts/train_sd3.py``): it samples with the
LoRA layers in place and in the precision of training, embeds the prompt of every image anew for the rollout
and for every trained step, takes the denoising steps of the update one at a time, and asks the reference
for every sample. Rewards, advantages, batches and losses are the suite's own, so that both loops compute the
same gradients.
"""

from __future__ import annotations

import torch

from base_models import open_base_model
from methods import Loss
from processes.base import REFERENCE
from processes.reverse import make_batch
from processes.rows import ImageExperience, Rows
from processes.sampling import Trajectories, decode
from training.trainer import Trainer


class StraightLoop:
    """Iterations of one trainer's run, for methods that train on denoising steps."""

    def __init__(self, trainer: Trainer):
        self.trainer, self.settings = trainer, trainer.config.training
        self.model, self.method, self.process = trainer.model, trainer.method, trainer.process
        # The trainer let go of its text encoders once its prompts were embedded.
        self.encoder = open_base_model(trainer.config.base_model, trainer.model.device)
        guided = self.model.classifier_free_guidance
        self.empty = self.encoder.encode_prompts([self.encoder.unconditional_prompt]) if guided else None

    def iterate(self, iteration: int) -> None:
        """One whole iteration: gradients, optimiser step, moving average."""
        self.gradients(iteration)
        self.trainer.step(Loss(None), iteration)
        self.trainer.adapters.move_average(self.settings.ema_decay)

    def gradients(self, iteration: int) -> None:
        """Rollout, rewards and gradients of one iteration."""
        scorer, prompts, c = self.process.scorer, self.process.prompts, self.settings
        drawn = prompts.draw(c.prompts_per_iteration, self.trainer.config.seed, iteration)
        prompt_of = torch.tensor(drawn).repeat_interleave(c.group_size)
        texts, every = [prompts.prompts[i]["prompt"] for i in prompt_of], slice(0, len(prompt_of))
        t = self.roll_out(texts, *self.process.draw_noise(iteration, every))
        images = decode(self.model, t.latents[-1], len(texts))
        scores = scorer.score(images, prompt_of, monitored=False)
        scores = {name: values.cpu() for name, values in scores.items()}
        prepared = self.method.prepare(scorer.as_rollout(scores, prompt_of, iteration))
        experience = ImageExperience(
            iteration, trajectories=t, prepared=prepared, prompt_of=prompt_of, share=every
        )
        self.trainer.optimiser.zero_grad()
        for k in self.process.trainable:
            self.step_gradients(experience, k, texts)

    @torch.no_grad()
    def roll_out(self, texts: list[str], initial: torch.Tensor, noises: torch.Tensor) -> Trajectories:
        """Denoise all images together, stochastic on the window's steps."""
        prompts, stochastic = self.encoder.encode_prompts(texts), self.process.trainable
        transition = self.process.transition
        sigmas = transition.sigmas
        latents, log_probs = [initial], []
        for i in range(len(sigmas) - 1):
            x = latents[-1]
            v = self.model.velocity(x, sigmas[i].expand(len(x)), prompts, self.empty)
            if i in stochastic:
                taken = transition(v, x, i, noise=noises[stochastic.index(i)])
                latents.append(taken.x_next)
                log_probs.append(taken.log_prob)
            else:
                latents.append(x + (sigmas[i + 1] - sigmas[i]) * v)
                log_probs.append(torch.zeros(len(x), device=x.device))
        source = torch.arange(len(initial)).expand(len(log_probs), -1)
        return Trajectories(torch.stack(latents), sigmas, source, transition, torch.stack(log_probs))

    def step_gradients(self, experience: ImageExperience, k: int, texts: list[str]) -> None:
        """Gradients of all images at denoising step ``k``."""
        needs, model, images = self.process.needs, self.model, torch.arange(len(texts))
        rows = Rows.of(experience, images, torch.tensor([k]), self.settings.trained_steps)
        at = (*rows.inputs()[:2], self.encoder.encode_prompts(texts), self.empty)
        reference = None
        if needs.reference != "none":
            with torch.no_grad(), model.using(REFERENCE if needs.adaptive_reference else None):
                reference = model.velocity(*at)
        wanted = rows.referenced(needs.reference).cpu()
        batch = make_batch(rows, model.velocity(*at), wanted, reference, on_policy=True)
        self.method.loss(batch).backward()
