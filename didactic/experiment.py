"""One run: a method of ``methods/`` fine-tunes the pre-trained perceptron on the reward landscape."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass

import pandas as pd
import torch

import methods
from didactic import mixture, policy
from didactic.configuration import MixtureRow, Setting
from methods import Batch, DataBatch, Method, Prepared, Rollout
from methods.maths.advantages import diversity_aware
from processes.base import noised
from processes.reverse import make_batch
from processes.rows import ImageExperience, Rows
from processes.sampling import Trajectories

SAMPLER = policy.Sampler(steps=10, last_by_ode=True)
MEASURED = 2000  # samples of a measurement


@dataclass(frozen=True)
class Outcome:
    """``scores`` (step, measure, value) and final samples (MEASURED, 2)."""

    scores: pd.DataFrame
    samples: torch.Tensor


@dataclass(frozen=True)
class World:
    """What is rewarded, the rewards that GARDO's gate compares it with, and the run's random state."""

    reward: mixture.Reward
    auxiliary: list[mixture.FittedReward]
    rng: torch.Generator


def _experience(path: torch.Tensor, prepared: Prepared) -> ImageExperience:
    """Samples as the images of a rollout without prompts, none of which shares a state."""
    transition, samples = SAMPLER.transition, torch.arange(path.shape[1])
    return ImageExperience(
        0,
        trajectories=Trajectories(path, transition.sigmas, samples.expand(SAMPLER.steps, -1), transition),
        prepared=prepared,
        prompt_of=samples,
        share=slice(0, len(samples)),
    )


def _batch(model, reference, method, prepared, path, rng) -> Batch:
    """All (sample, step) pairs of one rollout, strictly on policy."""
    n, needs = path.shape[1], method.config.needs()
    rows = Rows.of(_experience(path, prepared), torch.arange(n), torch.tensor(SAMPLER.stochastic))
    x, sigma, _ = rows.inputs()
    velocity, wanted = model(x, sigma), rows.referenced(needs.reference)
    of_reference, data = torch.zeros_like(velocity), None
    if wanted.any():
        with torch.no_grad():
            of_reference[wanted] = reference(x[wanted], sigma[wanted])
    if needs.data:
        rows.data_total = n
        x0, noise = mixture.sample(n, rng), torch.randn(n, 2, generator=rng)
        sigma = torch.rand(n, generator=rng)
        data = DataBatch(x0, noise, model(noised(x0, noise, sigma), sigma))
    return make_batch(rows, velocity, wanted, of_reference, data, on_policy=True)


def _shuffled(rewards: torch.Tensor, group_size: int, rng: torch.Generator) -> torch.Tensor:
    """Rewards (N,) permuted within each group."""
    grouped = rewards.view(-1, group_size)
    return grouped.gather(1, torch.rand(grouped.shape, generator=rng).argsort(1)).flatten()


def _prepare(method: Method, row: MixtureRow, setting: Setting, x: torch.Tensor, world: World) -> Prepared:
    """Advantages and gate of the samples ``x`` (N, 2)."""
    rewards = world.reward(x)
    if row.optimised_reward == "shuffled":
        rewards = _shuffled(rewards, setting.group_size, world.rng)
    rare = mixture.rarity(x) if row.shape_by_rarity else None
    if row.shape_by_rarity == "rewards":
        rewards = rewards * rare / rare.mean()
    groups = torch.arange(len(x)) // setting.group_size
    needs = method.config.needs()
    auxiliary = torch.stack([a(x) for a in world.auxiliary]) if needs.auxiliary else None
    features = mixture.FEATURES[setting.features](x) if needs.features else None
    prepared = method.prepare(Rollout(rewards, groups, auxiliary=auxiliary, features=features))
    if row.shape_by_rarity == "advantages":
        shaped = diversity_aware(prepared.advantages, rare, torch.zeros_like(groups), "official_code")
        prepared = dataclasses.replace(prepared, advantages=shaped)
    return prepared


def run(base: policy.Velocity, row: MixtureRow, setting: Setting, seed: int) -> Outcome:
    """Fine-tune a copy of ``base``; a row without algorithm measures the base model alone."""
    model, rng = copy.deepcopy(base), torch.Generator().manual_seed(seed)
    reward = mixture.Reward(setting.reward_width, setting.heights)
    world = World(reward, [mixture.FittedReward(reward, rng) for _ in range(2)], rng)
    rows = []

    def measure(step: int) -> torch.Tensor:
        samples = SAMPLER.rollout(model, MEASURED, torch.Generator().manual_seed(1000 + seed))[-1]
        found = mixture.measures(samples, reward)
        rows.extend({"step": step, "measure": k, "value": v} for k, v in found.items())
        return samples

    samples = measure(0)
    if row.algorithm is None:
        return Outcome(pd.DataFrame(rows), samples)
    kind = methods.get(row.algorithm)
    method = kind(kind.Config(**row.parameters), latent_dimensions=2)
    reference = copy.deepcopy(base)
    optimizer = torch.optim.Adam(model.parameters(), lr=setting.learning_rate)
    for iteration in range(1, setting.iterations + 1):
        path = SAMPLER.rollout(model, setting.samples, rng)
        prepared = _prepare(method, row, setting, path[-1], world)
        loss = method.loss(_batch(model, reference, method, prepared, path, rng))
        optimizer.zero_grad(set_to_none=True)
        loss.value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if method.after_update(loss.steering):
            reference = copy.deepcopy(model)
        if iteration % (setting.iterations // setting.measurements) == 0:
            samples = measure(iteration)
    return Outcome(pd.DataFrame(rows), samples)
