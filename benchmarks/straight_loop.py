"""One training iteration written straight down, the yardstick of the suite's own loop.

It does what the public Flow-GRPO-style scripts do (flow_grpo ``scripts/train_sd3.py``): it samples with the
LoRA layers in place and in the precision of training, embeds the prompt of every image anew for the rollout
and for every trained step, takes the denoising steps of the update one at a time, and asks the reference
for every sample. Rewards, advantages and losses are the suite's own, so that both loops compute the same
gradients.
"""

from __future__ import annotations

import torch

from base_models.base import BaseModel, Prompts
from methods import Batch
from methods.sde import STEPS
from training.rollout import Trajectories, decode
from training.trainer import Trainer
from training.update import REFERENCE


def roll_out(trainer: Trainer, texts: list[str], initial: torch.Tensor, noises: torch.Tensor) -> Trajectories:
    """Denoise all images together, stochastic on the window's steps."""
    model, c = trainer.model, trainer.config.training
    prompts = model.encode_prompts(texts)
    sigmas = model.sigmas(model.config.rollout_steps)
    latents, means, log_probs = [initial], [], []
    with torch.no_grad():
        for i in range(model.config.rollout_steps):
            x = latents[-1]
            v = model.velocity(x, sigmas[i].expand(len(x)), prompts, empty_prompt(model))
            if i in trainer.collector.stochastic:
                taken = STEPS[c.sde](
                    v,
                    x,
                    sigmas[i],
                    sigmas[i + 1],
                    sigma_second=sigmas[1],
                    noise_level=c.noise_level,
                    noise=noises[trainer.collector.stochastic.index(i)],
                )
                latents.append(taken.x_next)
                means.append(taken.mean)
                log_probs.append(taken.log_prob)
            else:
                latents.append(x + (sigmas[i + 1] - sigmas[i]) * v)
                means.append(latents[-1])
                log_probs.append(torch.zeros(len(x)))
    return Trajectories(torch.stack(latents), torch.stack(means), torch.stack(log_probs), sigmas)


def empty_prompt(model: BaseModel) -> Prompts | None:
    return model.encode_prompts([""]) if model.config.guidance_scale > 1 else None


def gradients(trainer: Trainer, iteration: int) -> None:
    """Rollout, rewards and gradients of one iteration of a method that trains on denoising steps."""
    model, method, c = trainer.model, trainer.method, trainer.config.training
    drawn = trainer.prompts.draw(c.prompts_per_iteration, trainer.config.seed, iteration)
    prompt_of = torch.tensor(drawn).repeat_interleave(c.group_size)
    texts = [trainer.prompts.prompts[i]["prompt"] for i in prompt_of]
    everything = slice(0, len(prompt_of))
    initial, noises = trainer.collector.draw_noise(len(prompt_of), everything, iteration)
    t = roll_out(trainer, texts, initial, noises)
    images = decode(model, t.latents[-1], len(texts))
    scores = trainer.collector.score(images, prompt_of, {})
    prepared = method.prepare(trainer.collector.as_rollout(scores, prompt_of))
    trainer.optimizer.zero_grad(set_to_none=True)
    total, gated = len(texts) * c.trained_steps, int(prepared.gate.sum()) * c.trained_steps
    for k in trainer.collector.stochastic:
        step_gradients(trainer, t, k, model.encode_prompts(texts), prepared, total, gated)


def step_gradients(trainer, t: Trajectories, k: int, prompts: Prompts, prepared, total: int, gated: int):
    """Gradients of all images at denoising step ``k``."""
    model, method, c = trainer.model, trainer.method, trainer.config.training
    x, sigma, empty = t.latents[k], t.sigmas[k].expand(t.latents.shape[1]), empty_prompt(model)

    def transition(velocity):
        return STEPS[c.sde](
            velocity,
            x,
            t.sigmas[k],
            t.sigmas[k + 1],
            sigma_second=t.sigmas[1],
            noise_level=c.noise_level,
            x_next=t.latents[k + 1],
        )

    reference = None
    if method.needs.reference != "none":
        with torch.no_grad(), model.using(REFERENCE if method.needs.adaptive_reference else None):
            reference = transition(model.velocity(x, sigma, prompts, empty)).mean
    asked = prepared.gate if method.needs.reference == "gated" else torch.ones_like(prepared.gate)
    now = transition(model.velocity(x, sigma, prompts, empty))
    batch = Batch(
        x_next=t.latents[k + 1],
        mean=now.mean,
        std=now.std,
        noise_std=now.noise_std,
        log_prob=now.log_prob,
        old_mean=t.means[k],
        old_log_prob=t.log_probs[k],
        advantages=prepared.advantages.float(),
        gate=prepared.gate,
        rows=total,
        gated_rows=gated,
        reference_rows=None if reference is None else asked,
        reference_mean=None if reference is None else reference[asked],
    )
    method.loss(batch)[0].backward()


def iterate(trainer: Trainer, iteration: int) -> None:
    """One whole iteration: gradients, optimiser step, moving average."""
    gradients(trainer, iteration)
    trainer.step({"kl_loss": 0.0}, iteration)
    trainer.follow()


__all__ = ["gradients", "iterate", "roll_out"]
