"""One run: a method of ``methods/`` fine-tunes the pre-trained perceptron on the reward landscape."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import pandas as pd
import torch

import methods
from didactic import mixture, policy
from methods import Batch, DataBatch, Rollout

SAMPLER = policy.Sampler(steps=10, last_by_ode=True)
GROUPS, GROUP_SIZE = 8, 32
ITERATIONS, LEARNING_RATE = 400, 1e-3
MEASURED, EVERY = 2000, 20  # samples and iterations between measurements


@dataclass(frozen=True)
class Outcome:
    """``scores`` (step, measure, value) and final samples (MEASURED, 2)."""

    scores: pd.DataFrame
    samples: torch.Tensor


def _batch(model, reference, method, prepared, path, rng) -> Batch:
    """All (sample, step) pairs of one rollout, strictly on policy."""
    n = path.shape[1]
    x, x_next, step, sample = SAMPLER.rows(path)
    now = SAMPLER.transition(model, x, step, x_next)
    gate, wanted = prepared.gate[sample], None
    needs, reference_mean, data = method.needs, None, None
    if needs.reference != "none":
        wanted = gate if needs.reference == "gated" else torch.ones_like(gate)
        if wanted.any():
            with torch.no_grad():
                reference_mean = SAMPLER.transition(reference, x[wanted], step[wanted]).mean
    if needs.data:
        x0, noise = mixture.sample(n, rng), torch.randn(n, 2, generator=rng)
        sigma = torch.rand(n, generator=rng)
        noised = (1 - sigma[:, None]) * x0 + sigma[:, None] * noise
        data = DataBatch(x0, noise, model(noised, sigma))
    return Batch(
        x_next=x_next,
        mean=now.mean,
        std=now.std,
        noise_std=now.noise_std,
        log_prob=now.log_prob,
        old_mean=now.mean.detach(),
        old_log_prob=now.log_prob.detach(),
        advantages=prepared.advantages[sample].float(),
        gate=gate,
        step=step,
        rows=len(sample),
        gated_rows=int(gate.sum()),
        reference_rows=wanted if reference_mean is not None else None,
        reference_mean=reference_mean,
        data=data,
        data_rows=n if data else 0,
    )


def run(base: policy.Velocity, algorithm: str | None, parameters: dict, seed: int) -> Outcome:
    """Fine-tune a copy of ``base``; ``algorithm`` None measures the base model alone."""
    model, rng = copy.deepcopy(base), torch.Generator().manual_seed(seed)
    auxiliary = [mixture.FittedReward(rng) for _ in range(2)]
    rows = []

    def measure(step: int) -> torch.Tensor:
        samples = SAMPLER.rollout(model, MEASURED, torch.Generator().manual_seed(1000 + seed))[-1]
        rows.extend({"step": step, "measure": k, "value": v} for k, v in mixture.measures(samples).items())
        return samples

    samples = measure(0)
    if algorithm is None:
        return Outcome(pd.DataFrame(rows), samples)
    kind = methods.get(algorithm)
    method = kind(kind.Config(**parameters), latent_dimensions=2)
    reference = copy.deepcopy(base)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    groups = torch.arange(GROUPS).repeat_interleave(GROUP_SIZE)
    for iteration in range(1, ITERATIONS + 1):
        path = SAMPLER.rollout(model, len(groups), rng)
        seen = Rollout(
            mixture.reward(path[-1]),
            groups,
            auxiliary=torch.stack([a(path[-1]) for a in auxiliary]),
            features=mixture.features(path[-1]),
        )
        prepared = method.prepare(seen)
        loss, terms = method.loss(_batch(model, reference, method, prepared, path, rng))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if method.after_update(terms):
            reference = copy.deepcopy(model)
        if iteration % EVERY == 0:
            samples = measure(iteration)
    return Outcome(pd.DataFrame(rows), samples)
