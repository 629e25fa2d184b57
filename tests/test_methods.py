"""Maths of the methods: edge cases, and a contract that every registered method must keep."""

import math
from dataclasses import replace

import pytest
import torch

import methods
from methods import Batch, DataBatch, ForwardBatch, Rollout, SupervisedBatch
from methods.diffusion_nft import diffusion_nft_loss
from methods.grpo_guard import normalised_log_ratio
from methods.maths.advantages import diversity_aware, group_advantages
from methods.maths.diversity import group_diversity, nearest_distance
from methods.maths.gate import GateShareController, descending_rank, gate, uncertainty, win_rate
from methods.maths.policy_loss import gated_kl
from methods.maths.reward_combination import combine
from methods.maths.sde import STEPS

GROUPS = torch.tensor([0, 0, 0, 1, 1, 1])


@pytest.mark.parametrize("normalisation", ["group_std", "global_std", "none"])
def test_advantages_are_zero_where_a_group_has_equal_rewards(normalisation):
    rewards = torch.tensor([0.3, 0.3, 0.3, 0.1, 0.5, 0.9])
    advantages = group_advantages(rewards, GROUPS, normalisation)
    assert torch.equal(advantages[:3], torch.zeros(3))
    assert advantages[3:].sum().abs() < 1e-5 and advantages[5] > 0


def test_nearest_distance_of_an_image_alone_changes_nothing():
    distance = nearest_distance(torch.randn(3, 4), torch.tensor([0, 1, 1]))
    assert distance[0] == 1 and distance[1] == distance[2]


@pytest.mark.parametrize("seed", range(4))
def test_identical_images_lie_at_distance_zero_up_to_rounding(seed):
    torch.manual_seed(seed)
    groups, advantages = torch.zeros(24, dtype=torch.long), torch.linspace(-1, 1, 24)
    distance = nearest_distance(torch.randn(1, 384).repeat(24, 1), groups)
    assert (distance >= 0).all() and (distance < 1e-6).all()
    assert torch.equal(diversity_aware(advantages, distance, groups, "official_code"), advantages)
    paper = diversity_aware(advantages, distance, groups, "paper")
    assert torch.equal(paper[:12], advantages[:12])  # negative advantages are never touched
    assert (paper[12:] >= 0).all() and (paper[12:] < 1e-6).all()


@pytest.mark.parametrize("reading", ["paper", "official_code"])
def test_an_image_alone_in_its_group_has_advantage_zero(reading):
    groups = torch.tensor([0, 1, 1])
    for normalisation in ("group_std", "global_std", "none"):
        advantages = group_advantages(torch.tensor([0.9, 0.1, 0.5]), groups, normalisation)
        distance = nearest_distance(torch.randn(3, 4), groups)
        assert diversity_aware(advantages, distance, groups, reading)[0] == 0


def test_diversity_needs_two_images():
    with pytest.raises(ValueError, match="two images"):
        group_diversity(torch.randn(3, 1, 4))


def test_uncertainty_has_opposite_signs_in_paper_and_code():
    proxy, auxiliary = torch.tensor([4.0, 3, 2, 1]), torch.tensor([[1.0, 2, 3, 4], [1.0, 2, 3, 4]])
    paper, code = (uncertainty(proxy, auxiliary, reading) for reading in ("paper", "official_code"))
    assert paper[0] == 0.75 and code[0] == -3
    assert gate(paper, 0.25, "paper").tolist() == [True, False, False, False]


def test_equal_scores_win_nothing_and_are_ranked_in_their_order():
    scores = torch.tensor([1.0, 2.0, 1.0, 2.0])
    assert win_rate(scores).tolist() == [0, 0.5, 0, 0.5]
    assert descending_rank(scores).tolist() == [3, 1, 4, 2]


def test_rounding_does_not_move_the_share():
    torch.manual_seed(0)
    controller = GateShareController(0.1, 3, "paper")
    for _ in range(50):  # without ties every win rate averages to (B - 1) / 2B
        means = uncertainty(torch.randn(24), torch.randn(2, 24), "paper").mean().item()
        assert controller.update(means) == 0.1


@pytest.mark.parametrize("reading", ["paper", "official_code"])
def test_gate_takes_nothing_when_all_is_tied_or_empty(reading):
    tied = torch.zeros(5, dtype=torch.float64)
    assert not gate(tied, 0.1, reading).any()
    assert not gate(tied - 1, 0.1, "official_code").any()


def test_gate_share_waits_for_a_full_window_and_is_capped():
    controller = GateShareController(0.95, 3, "paper")
    assert [controller.update(m) for m in (1.0, 2.0, 3.0)] == [0.95] * 3
    assert controller.update(4.0) == 1.0
    copy = GateShareController(0.95, 3, "paper")
    copy.load_state_dict(controller.state_dict())
    assert copy.update(0.0) == controller.update(0.0) == 0.9


def test_gated_kl_without_a_gated_sample_is_zero():
    nothing = torch.zeros(4, dtype=torch.bool)
    assert gated_kl(torch.ones(4), nothing, 4, 0) == 0
    assert gated_kl(torch.ones(4), nothing, 4, 0, official_code=True) == 0


@pytest.mark.parametrize("name", sorted(STEPS))
def test_sde_steps_take_one_sigma_per_row(name):
    x, v, noise = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    sigma, after = torch.tensor([1.0, 0.7, 0.3]), torch.tensor([0.7, 0.3, 0.1])
    together = STEPS[name](v, x, sigma, after, sigma_second=0.7, noise_level=0.6, noise=noise)
    for i in range(3):
        alone = STEPS[name](
            v[i : i + 1],
            x[i : i + 1],
            sigma[i],
            after[i],
            sigma_second=0.7,
            noise_level=0.6,
            noise=noise[i : i + 1],
        )
        assert torch.allclose(together.x_next[i], alone.x_next[0], atol=1e-6)
        assert torch.allclose(together.log_prob[i], alone.log_prob[0], atol=1e-5)


def test_flow_sde_keeps_the_marginals_of_the_ode():
    """With the exact velocity of Gaussian data the SDE's samples keep the variance of the flow."""
    torch.manual_seed(0)
    spread = 0.5
    sigmas = torch.linspace(1, 0, 201)[:-1]
    x = torch.randn(20000, 1)
    for sigma, after in zip(sigmas[:-1], sigmas[1:], strict=True):
        variance = (1 - sigma) ** 2 * spread**2 + sigma**2
        velocity = x * (sigma - (1 - sigma) * spread**2) / variance
        x = STEPS["flow_sde"](
            velocity, x, sigma, after, sigma_second=sigmas[1], noise_level=0.7, noise=torch.randn_like(x)
        ).x_next
    assert math.isclose(x.std().item(), spread, rel_tol=0.03)


def make_batch(method, parameter: torch.Tensor, rollout: Rollout) -> Batch | ForwardBatch | SupervisedBatch:
    """A batch whose policy means, log-probabilities and data velocities depend on ``parameter``."""
    prepared = method.prepare(rollout)
    torch.manual_seed(1)
    n = len(rollout.rewards)
    x, x_next, noise = torch.randn(n, 2, 4, 4), torch.randn(n, 2, 4, 4), torch.randn(n, 2, 4, 4)
    arguments = dict(sigma_second=0.7, noise_level=0.7, x_next=x_next)
    velocity = noise * parameter
    now = STEPS["flow_sde"](velocity, x, 0.7, 0.4, **arguments)
    needs = method.needs
    wanted = prepared.gate if needs.reference == "gated" else torch.full((n,), needs.reference == "all")
    common = dict(
        advantages=prepared.advantages.float(),
        gate=prepared.gate,
        rows=n,
        gated_rows=int(prepared.gate.sum()),
        reference_rows=wanted if wanted.any() else None,
    )
    if needs.process == "data":
        return SupervisedBatch(DataBatch(x, noise, noise * parameter), n)
    if needs.process == "forward":
        return ForwardBatch(
            velocity=velocity,
            old_velocity=noise,
            x0=x,
            noise=noise,
            t=torch.full((n,), 0.7),
            reference_velocity=0.9 * noise[wanted] if wanted.any() else None,
            **common,
        )
    common["step"] = torch.zeros(n, dtype=torch.long)
    reference = STEPS["flow_sde"](noise * 0.9, x, 0.7, 0.4, **arguments)
    return Batch(
        x_next=x_next,
        mean=now.mean,
        std=now.std,
        noise_std=now.noise_std,
        log_prob=now.log_prob,
        old_mean=now.mean.detach(),
        old_log_prob=now.log_prob.detach(),
        reference_mean=reference.mean[wanted] if wanted.any() else None,
        data=DataBatch(x, noise, noise * parameter) if needs.data else None,
        data_rows=n if needs.data else 0,
        **common,
    )


def make_rollout() -> Rollout:
    torch.manual_seed(0)
    return Rollout(torch.rand(6), GROUPS, auxiliary=torch.rand(2, 6), features=torch.randn(6, 8))


@pytest.mark.parametrize("name", methods.names())
def test_every_method_keeps_the_contract(name):
    algorithm = methods.get(name)
    method = algorithm(algorithm.Config(), latent_dimensions=32)
    parameter = torch.ones(1, requires_grad=True)
    batch = make_batch(method, parameter, make_rollout())
    loss, terms = method.loss(batch)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(parameter.grad).all() and parameter.grad.abs() > 0
    assert terms.get("clipped_share", 0.0) == 0  # on policy the ratio is exactly 1
    assert all(isinstance(v, float) for v in terms.values())
    method.after_update(terms)
    copy = algorithm(algorithm.Config(), latent_dimensions=32)
    copy.load_state_dict(method.state_dict())
    assert copy.state_dict() == method.state_dict()
    with pytest.raises(ValueError, match="no_such_key"):
        algorithm.Config(no_such_key=1)


def off_policy_batch(method) -> Batch:
    """A batch whose policy has moved since the rollout."""
    batch = make_batch(method, torch.ones(1), make_rollout())
    return replace(batch, old_log_prob=batch.log_prob - torch.linspace(-0.5, 0.5, 6))


def written_out(batch: Batch, c) -> tuple[torch.Tensor, torch.Tensor]:
    """The clipped loss of each row, and the KL of each reference row."""
    a, ratio = batch.advantages.clamp(-5, 5), torch.linspace(-0.5, 0.5, 6).exp()
    policy = torch.maximum(-a * ratio, -a * ratio.clamp(1 - c.clip_range, 1 + c.clip_range))
    if batch.reference_mean is None:
        return policy, torch.zeros(0)
    apart = (batch.mean[batch.reference_rows] - batch.reference_mean) ** 2
    return policy, (apart / (2 * batch.std**2)).mean((1, 2, 3))


@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_grpo_loss_is_the_formula(beta):
    method = methods.get("grpo")(methods.get("grpo").Config(beta=beta, clip_range=0.1), 32)
    batch = off_policy_batch(method)
    policy, kl = written_out(batch, method.config)
    loss, terms = method.loss(batch)
    expected = policy.mean() + (beta * kl.mean() if beta else 0)
    assert torch.allclose(loss, expected) and terms["clipped_share"] == pytest.approx(5 / 6)


@pytest.mark.parametrize("reading", ["paper", "official_code"])
def test_gardo_loss_is_the_formula(reading):
    config = methods.get("gardo").Config(beta=0.3, clip_range=0.1, gate_share=0.5, kl_average=reading)
    method = methods.get("gardo")(config, 32)
    batch = off_policy_batch(method)
    policy, kl = written_out(batch, config)
    gated = int(batch.gate.sum())
    assert 0 < gated == len(kl) < 6
    expected = policy.mean() + 0.3 * kl.sum() / (6 if reading == "paper" else gated)
    assert torch.allclose(method.loss(batch)[0], expected)
    # No gated row, no KL.
    nothing = replace(batch, reference_rows=None, reference_mean=None)
    assert torch.allclose(method.loss(nothing)[0], policy.mean())


def test_ddrl_loss_is_the_formula():
    config = methods.get("ddrl").Config(data_beta=0.3, clip_range=0.1)
    method = methods.get("ddrl")(config, 32)
    batch = off_policy_batch(method)
    data = ((batch.data.velocity - (batch.data.noise - batch.data.x0)) ** 2).mean()
    expected = written_out(batch, config)[0].mean() + 0.3 * data
    assert torch.allclose(method.loss(batch)[0], expected)


def test_diffusion_nft_loss_is_the_formula():
    config = methods.get("diffusion_nft").Config(beta=0.3, guidance_strength=0.5)
    method = methods.get("diffusion_nft")(config, 32)
    b = make_batch(method, torch.full((1,), 1.2), make_rollout())
    x_t = 0.3 * b.x0 + 0.7 * b.noise
    r = 0.5 + b.advantages.clamp(-5, 5) / 10
    errors = []
    for v in (0.5 * b.old_velocity + 0.5 * b.velocity, 1.5 * b.old_velocity - 0.5 * b.velocity):
        error = x_t - 0.7 * v - b.x0
        errors.append((error**2).mean((1, 2, 3)) / error.abs().mean((1, 2, 3)))
    policy = ((r * errors[0] + (1 - r) * errors[1]) * 5 / 0.5).mean()
    kl = ((b.velocity - b.reference_velocity) ** 2).mean()
    assert torch.allclose(method.loss(b)[0], policy + 0.3 * kl)


def test_an_unknown_method_names_the_valid_ones():
    with pytest.raises(ValueError, match="gardo"):
        methods.get("no_such_method")


def test_gardo_resets_its_reference_by_threshold_and_by_time():
    algorithm = methods.get("gardo")
    method = algorithm(algorithm.Config(reset_after=3), latent_dimensions=65536)
    assert not method.after_update({"kl_loss": 0.9e-4})
    assert method.after_update({"kl_loss": 1.1e-4})
    assert [method.after_update({"kl_loss": 0.0}) for _ in range(3)] == [False, False, True]
    small = algorithm(algorithm.Config(), latent_dimensions=512)
    assert small.regularisation.kl_threshold == pytest.approx(1e-4 * 65536 / 512)
    static = algorithm(algorithm.Config(adaptive_reference=False), latent_dimensions=512)
    assert not static.after_update({"kl_loss": 1e9})


def test_gardo_asks_only_for_what_its_parts_need():
    algorithm = methods.get("gardo")
    plain = algorithm(
        algorithm.Config(diversity=False, gated=False, adaptive_reference=False), latent_dimensions=1
    )
    assert plain.needs == methods.Needs(reference="all")
    assert algorithm(algorithm.Config(), latent_dimensions=1).needs == methods.Needs(
        features=True, auxiliary=True, reference="gated", adaptive_reference=True
    )


def test_rewards_combine_in_their_own_scales_or_standardised():
    proxy, auxiliary = torch.tensor([0.0, 1.0, 0.5]), torch.tensor([[10.0, 0.0, 5.0], [4.0, 4.0, 4.0]])
    assert combine(proxy, auxiliary, "proxy", (0.8, 0.1)) is proxy
    weighted = combine(proxy, auxiliary, "weighted", (0.8, 0.1))
    assert torch.allclose(weighted, torch.tensor([1.4, 1.2, 1.3]))
    mean = combine(proxy, auxiliary, "ensemble_mean", (0.8, 0.1))
    assert torch.allclose(mean, torch.zeros(3), atol=1e-4)  # the two that vary disagree exactly
    worst = combine(proxy, auxiliary, "ensemble_worst", (0.8, 0.1))
    assert worst[:2].max() < -1.2 and worst[2].abs() < 1e-4


@pytest.mark.parametrize("name", ["gardo", "diffusion_nft"])
def test_dropped_samples_leave_the_gradient_and_need_no_reference(name):
    algorithm = methods.get(name)
    settings = dict(uncertain="drop", gated=True, gate_share=0.5, diversity=False, beta=0.1)
    method = algorithm(algorithm.Config(**settings), latent_dimensions=32)
    assert method.needs.reference == "none" and not method.needs.adaptive_reference
    assert method.needs.auxiliary
    prepared = method.prepare(make_rollout())
    assert prepared.gate.any() and (prepared.advantages[prepared.gate] == 0).all()
    assert (prepared.advantages[~prepared.gate] != 0).any()


def test_diffusion_nft_prefers_good_images_and_follows_its_old_policy():
    torch.manual_seed(0)
    x0, noise, old = (torch.randn(4, 2, 4, 4) for _ in range(3))
    velocity = old.clone().requires_grad_()
    t, good = torch.full((4,), 0.5), torch.tensor([5.0, -5.0, 5.0, -5.0])
    diffusion_nft_loss(velocity, old, x0, noise, t, good, 1.0, 5.0).sum().backward()
    toward = ((noise - x0 - old) * -velocity.grad).flatten(1).sum(1)
    assert (toward[good > 0] > 0).all() and (toward[good < 0] < 0).all()
    algorithm = methods.get("diffusion_nft")
    late = algorithm(
        algorithm.Config(old_decay_start=75, old_decay_rate=0.0075, old_decay_max=0.999), latent_dimensions=1
    )
    assert [late.old_policy_decay(n) for n in (0, 75, 95)] == [0, 0, pytest.approx(0.15)]
    assert late.old_policy_decay(10_000) == 0.999


def test_ddrl_exponential_advantages_are_the_theorems():
    algorithm = methods.get("ddrl")
    plain, exponential = (
        algorithm(algorithm.Config(advantage_transform=kind), latent_dimensions=1)
        for kind in ("none", "exponential")
    )
    rollout = make_rollout()
    expected = -torch.exp(-plain.prepare(rollout).advantages)
    assert torch.equal(exponential.prepare(rollout).advantages, expected)


def test_grpo_guard_centres_the_log_ratio_of_a_moved_policy():
    torch.manual_seed(0)
    n, noise_std = 4000, 0.3
    old_mean = torch.zeros(n, 2, 4, 4)
    mean, x = old_mean + 0.2, old_mean + noise_std * torch.randn_like(old_mean)

    def log_prob(mu):
        return (-0.5 * ((x - mu) / noise_std) ** 2).flatten(1).mean(1)

    plain = log_prob(mean) - log_prob(old_mean)
    guarded = normalised_log_ratio(plain, mean, old_mean, torch.full((n,), noise_std))
    assert plain.mean() < -0.2 and guarded.mean().abs() < 5e-3
    # The spread no longer depends on the step's noise: it is that of the mean of d mu * eps.
    assert guarded.std() == pytest.approx(0.2 / math.sqrt(32), rel=0.05)
