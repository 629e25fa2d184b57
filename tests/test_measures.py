"""KL from the base and diffusion loss on a model whose velocities are known."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from base_models.base import Embeddings
from evaluation.measures import LEVELS, diffusion_loss, kl_from_base


class Shifted:
    """The policy's velocity is the base's, -x, plus a constant."""

    device = torch.device("cpu")
    config = SimpleNamespace(rollout_steps=4)

    def __init__(self, shift: float):
        self.policy_shift = self.shift = shift

    def sigmas(self, steps):
        return torch.linspace(1, 0, steps + 1)

    def velocity(self, x, sigma, prompts, empty=None):
        return -x + self.shift

    def predict(self, x, sigma, prompts):
        return torch.full_like(x, self.shift)

    @contextmanager
    def using(self, name):
        self.shift = self.policy_shift if name else 0.0
        yield
        self.shift = self.policy_shift


def prompts(n: int) -> Embeddings:
    return Embeddings({"encoder_hidden_states": torch.zeros(n, 1, 1)})


def measure(shift: float, n: int = 6, batch: int = 4) -> float:
    rng = torch.Generator().manual_seed(0)
    initial = torch.randn(n, 2, 3, generator=rng)
    return kl_from_base(Shifted(shift), prompts(n), initial, noise_level=0.7, rng=rng, batch=batch)


def test_an_untrained_adapter_is_at_no_distance():
    assert measure(0.0) == 0.0


def test_a_constant_shift_has_the_closed_form_of_gaussian_steps():
    """Sum over steps of D (c (1 + s^2 (1 - sigma) / (2 sigma)) dt)^2 / (2 s^2 dt)."""
    sigmas, shift, expected = [1.0, 0.75, 0.5, 0.25, 0.0], 0.3, 0.0
    for sigma, following in zip(sigmas, sigmas[1:], strict=False):
        dt, capped = sigma - following, 0.75 if sigma == 1 else sigma
        variance = 0.7**2 * sigma / (1 - capped)
        step = shift * (1 + variance * (1 - sigma) / (2 * sigma)) * dt
        expected += 6 * step**2 / (2 * variance * dt)
    assert measure(shift) == pytest.approx(expected, rel=1e-4)
    assert measure(2 * shift) == pytest.approx(4 * expected, rel=1e-4)


def test_the_diffusion_loss_is_the_mean_squared_velocity_error():
    """Target noise - x0 with x0 = 0 and a prediction of c: E (c - eps)^2 = c^2 + 1."""
    rng, n = torch.Generator().manual_seed(0), 4000
    data = torch.zeros(n, 1, 2)
    loss = diffusion_loss(Shifted(0.5), prompts(n), data, rng, batch=1000)
    assert loss == pytest.approx(1.25, abs=5 / (n * 2 * LEVELS) ** 0.5)
    repeated = diffusion_loss(Shifted(0.5), prompts(n), data, torch.Generator().manual_seed(0), batch=1000)
    assert repeated == loss
