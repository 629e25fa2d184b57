"""DDRL's theorem, numerically (arXiv 2512.04332): the optimum is p_data(x) exp(r(x) / beta) / Z.

    J(theta) = E_p_theta[ lambda((r - Z) / beta) ] - D_KL(p_data || p_theta),   lambda(a) = -exp(-a).

In one and two dimensions the optimum is known. The policy is the path of an SDE with Gaussian steps, so both
terms are exact up to sampling: the policy gradient of the first, and for the second the sum over steps of the
KL between the data's conditional step and the policy's,

    KL_t = c_t^2 |v_cond - v_theta|^2 / (2 noise_t^2),   c_t = (1 + s^2 (1 - sigma) / (2 sigma)) dt.

Beside it stands what reverse-KL RL converges to when it is run as released: advantages divided by their
standard deviation, and Flow-GRPO's KL.
"""

from __future__ import annotations

import copy
import math

import numpy as np
import pandas as pd
import torch
from scipy.stats import wasserstein_distance

from didactic.policy import Sampler, Velocity, flow_loss
from methods.maths.advantages import group_advantages
from methods.maths.policy_loss import gaussian_kl

SAMPLER = Sampler(steps=20, last_by_ode=False)
BETA, SPREAD = 1.0, 0.35
UPDATES, EVERY, BATCH, LEARNING_RATE = 600, 50, 512, 5e-4
MEASURED, PROJECTIONS = 8000, 16


def data(n: int, dimensions: int, rng: torch.Generator) -> torch.Tensor:
    """Clusters at the corners of a cube of side 2, (n, D)."""
    corners = torch.randint(0, 2, (n, dimensions), generator=rng) * 2.0 - 1.0
    return corners + SPREAD * torch.randn(n, dimensions, generator=rng)


def reward(x: torch.Tensor) -> torch.Tensor:
    """r(x) = sum of the coordinates over sqrt(D), (N, D) -> (N,)."""
    return x.sum(1) / math.sqrt(x.shape[1])


def optimum(n: int, dimensions: int, rng: torch.Generator) -> torch.Tensor:
    """Points of p_data exp(r / beta) / Z by resampling many points of p_data, (n, D)."""
    points = data(50 * n, dimensions, rng)
    index = torch.multinomial(torch.softmax(reward(points) / BETA, 0), n, replacement=True, generator=rng)
    return points[index]


def distance(x: torch.Tensor, y: torch.Tensor) -> float:
    """Sliced 1-Wasserstein distance: the mean over fixed directions of the exact one along each."""
    directions = np.random.default_rng(0).standard_normal((PROJECTIONS, x.shape[1]))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    pairs = ((x.numpy() @ d, y.numpy() @ d) for d in directions)
    return float(np.mean([wasserstein_distance(a, b) for a, b in pairs]))


def forward_kl(model: Velocity, x0: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Estimate of D_KL(p_data's path || policy's path) up to a constant: one random step per point."""
    i = torch.randint(0, SAMPLER.steps, (len(x0),), generator=rng)
    sigma, noise = SAMPLER.sigmas[i][:, None], torch.randn(x0.shape, generator=rng)
    x = (1 - sigma) * x0 + sigma * noise
    now = SAMPLER.step(model, x, i)
    wanted = SAMPLER.transition(noise - x0, x, i)
    return SAMPLER.steps * ((now.mean - wanted.mean) ** 2 / (2 * now.noise_std**2)).sum(1).mean()


def ddrl_loss(model: Velocity, rng: torch.Generator, soft_value: float) -> torch.Tensor:
    """-J: policy gradient of E[lambda((r - Z) / beta)] plus the forward KL."""
    path = SAMPLER.rollout(model, BATCH, rng)
    weight = -torch.exp(-(reward(path[-1]) - soft_value) / BETA)
    x, x_next, step, sample = SAMPLER.rows(path)
    log_prob = SAMPLER.step(model, x, step, x_next).log_prob * model.dimensions  # the mean times D is the sum
    advantage = (weight - weight.mean())[sample]
    policy = -(advantage * log_prob).sum() / BATCH
    return policy + forward_kl(model, data(BATCH, model.dimensions, rng), rng)


def reverse_kl_loss(model: Velocity, reference: Velocity, rng: torch.Generator) -> torch.Tensor:
    """Flow-GRPO as released, with the same beta."""
    path = SAMPLER.rollout(model, BATCH, rng)
    groups = torch.zeros(BATCH, dtype=torch.long)
    advantage = group_advantages(reward(path[-1]), groups, "group_std")
    x, x_next, step, sample = SAMPLER.rows(path)
    now = SAMPLER.step(model, x, step, x_next)
    with torch.no_grad():
        mean = SAMPLER.step(reference, x, step).mean
    return -(advantage[sample] * now.log_prob).mean() + BETA * gaussian_kl(now.mean, mean, now.std).mean()


LOSSES = {"ddrl": "DDRL", "reverse_kl": "reverse KL, as released"}


def run(method: str, dimensions: int, seed: int) -> pd.DataFrame:
    """Distance to the optimum over updates: columns method, dimensions, seed, update, distance.

    Args:
        method: one of ``LOSSES``.
    """
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    base = Velocity(dimensions)
    optimizer = torch.optim.Adam(base.parameters(), lr=2e-3)
    for _ in range(2000):
        loss = flow_loss(base, data(BATCH, dimensions, rng), rng)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    target = optimum(MEASURED, dimensions, torch.Generator().manual_seed(99))
    points = data(200_000, dimensions, rng)
    soft_value = BETA * (torch.logsumexp(reward(points) / BETA, 0) - math.log(len(points))).item()
    model, rows = copy.deepcopy(base), []
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    for update in range(UPDATES + 1):
        if update % EVERY == 0:
            samples = SAMPLER.rollout(model, MEASURED, torch.Generator().manual_seed(7))[-1]
            rows.append({"update": update, "distance": distance(samples, target)})
        if method == "ddrl":
            loss = ddrl_loss(model, rng, soft_value)
        else:
            loss = reverse_kl_loss(model, base, rng)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return pd.DataFrame(rows).assign(method=method, dimensions=dimensions, seed=seed)
