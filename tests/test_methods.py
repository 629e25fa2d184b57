"""Maths of the methods: edge cases, and a contract that every registered method must keep."""

import math
from dataclasses import replace

import pytest
import torch

import methods
import processes
from core.plugins import Plugins
from methods import Batch, Loss, Method, MethodConfig, Needs, Rollout
from methods.diffusion_nft import diffusion_nft_loss
from methods.grpo_guard import normalised_log_ratio
from methods.maths.advantages import diversity_aware, group_advantages
from methods.maths.diversity import group_diversity, nearest_distance
from methods.maths.gate import GateShareController, descending_rank, gate, uncertainty, win_rate
from methods.maths.latent_size import PAPER_DIMENSIONS, ClipRange, KLThreshold
from methods.maths.official_code import dealt_kl, micro_batch_kl
from methods.maths.policy_loss import gated_kl
from methods.maths.reward_combination import combine
from methods.maths.sde import STEPS
from processes.rows import Rows
from tests.toy_process import make_batches, make_experience

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


def make_rollout() -> Rollout:
    torch.manual_seed(0)
    return Rollout(torch.rand(6), GROUPS, auxiliary=torch.rand(2, 6), features=torch.randn(6, 8))


@pytest.mark.parametrize("name", methods.names())
def test_every_method_keeps_the_contract(name):
    algorithm = methods.get(name)
    method = algorithm(algorithm.Config(), latent_dimensions=32)
    parameter = torch.ones(1, requires_grad=True)
    losses = [method.loss(batch).backward() for batch in make_batches(method, parameter, make_rollout())]
    loss = Loss.total(losses)
    assert losses and torch.isfinite(parameter.grad).all() and parameter.grad.abs() > 0
    assert loss.logged.get("clipped_share", 0.0) == 0  # on policy the ratio is exactly 1
    assert all(isinstance(v, float) for v in (loss.steering, *loss.logged.values()))
    assert isinstance(method.after_update(loss.steering), bool)
    copy = algorithm(algorithm.Config(), latent_dimensions=32)
    copy.load_state_dict(method.state_dict())
    assert copy.state_dict() == method.state_dict()
    processes.get(algorithm.Config().needs().process).check(algorithm.Config().needs())
    with pytest.raises(ValueError, match="no_such_key"):
        algorithm.Config(no_such_key=1)


@pytest.mark.parametrize("name", methods.names())
def test_what_is_logged_under_another_name_changes_nothing(name):
    """Resets and gradients of three steps, the logged terms renamed or not."""
    found = []
    for rename in (False, True):
        algorithm = methods.get(name)
        method = algorithm(algorithm.Config(), latent_dimensions=32)
        if "kl_threshold" in algorithm.Config.model_fields:
            settings = {"gated": False, "adaptive_reference": True, "beta": 1.0, "kl_threshold": 1e-9}
            method = algorithm(algorithm.Config(**settings), latent_dimensions=32)
        parameter, steps = torch.ones(1, requires_grad=True), []
        for _ in range(3):
            losses = [method.loss(b).backward() for b in make_batches(method, parameter, make_rollout())]
            if rename:
                losses = [replace(x, logged={f"my_{k}": v for k, v in x.logged.items()}) for x in losses]
            steps.append((method.after_update(Loss.total(losses).steering), parameter.grad.item()))
        found.append(steps)
    assert found[0] == found[1]
    assert name not in ("gardo", "diffusion_nft") or [reset for reset, _ in found[0]] == [True] * 3


@pytest.mark.parametrize("name", methods.names())
@pytest.mark.parametrize("micro_batch", [1, 2, 5])
def test_micro_batches_add_up(name, micro_batch):
    method = methods.get(name)(methods.get(name).Config(), latent_dimensions=32)
    gradients = []
    for size in (64, micro_batch):
        parameter = torch.ones(1, requires_grad=True)
        batches = make_batches(method, parameter, make_rollout(), micro_batch=size)
        loss = Loss.total([method.loss(b).backward() for b in batches])
        gradients.append((parameter.grad.item(), loss.steering, *loss.logged.values()))
    assert gradients[0] == pytest.approx(gradients[1], rel=1e-4, abs=1e-7)


def off_policy_batch(method) -> Batch:
    """A batch whose policy has moved since the rollout."""
    (batch,) = make_batches(method, torch.ones(1), make_rollout())
    spread = torch.linspace(-0.5, 0.5, len(batch.log_prob))
    return replace(batch, old_log_prob=batch.log_prob - spread)


def written_out(batch: Batch, c) -> tuple[torch.Tensor, torch.Tensor]:
    """The clipped loss of each row, and the KL of each reference row."""
    a, ratio = batch.advantages.clamp(-5, 5), torch.linspace(-0.5, 0.5, len(batch.advantages)).exp()
    policy = torch.maximum(-a * ratio, -a * ratio.clamp(1 - c.clip_range, 1 + c.clip_range))
    if batch.reference_mean is None:
        return policy, torch.zeros(0)
    apart = (batch.mean[batch.reference_rows] - batch.reference_mean) ** 2
    return policy, (apart / (2 * batch.std[batch.reference_rows] ** 2)).mean((1, 2, 3))


@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_grpo_loss_is_the_formula(beta):
    method = methods.get("grpo")(methods.get("grpo").Config(beta=beta, clip_range=0.1), PAPER_DIMENSIONS)
    batch = off_policy_batch(method)
    policy, kl = written_out(batch, method.config)
    loss = method.loss(batch)
    outside = (torch.linspace(-0.5, 0.5, 12).exp() - 1).abs() > 0.1
    expected = policy.mean() + (beta * kl.mean() if beta else 0)
    assert torch.allclose(loss.value, expected)
    assert loss.logged["clipped_share"] == pytest.approx(outside.double().mean().item())


@pytest.mark.parametrize("reading", ["paper", "official_code"])
def test_gardo_loss_is_the_formula(reading):
    config = methods.get("gardo").Config(beta=0.3, clip_range=0.1, gate_share=0.5, kl_average=reading)
    method = methods.get("gardo")(config, PAPER_DIMENSIONS)
    batch = off_policy_batch(method)
    policy, kl = written_out(batch, config)
    gated = int(batch.gate.sum())
    assert 0 < gated == len(kl) < 12
    mean_kl = kl.sum() / 12 if reading == "paper" else kl.mean() * (1 - (1 - gated / 12) ** 9)
    loss = method.loss(batch)
    assert torch.allclose(loss.value, policy.mean() + 0.3 * mean_kl)
    assert loss.steering == pytest.approx(mean_kl.item())
    # No gated row, no KL.
    nothing = replace(batch, reference_rows=None, reference_mean=None)
    assert torch.allclose(method.loss(nothing).value, policy.mean())


def test_ddrl_loss_is_the_formula():
    config = methods.get("ddrl").Config(data_beta=0.3, clip_range=0.1)
    method = methods.get("ddrl")(config, PAPER_DIMENSIONS)
    batch = off_policy_batch(method)
    data = ((batch.data.velocity - (batch.data.noise - batch.data.x0)) ** 2).mean()
    expected = written_out(batch, config)[0].mean() + 0.3 * data
    assert torch.allclose(method.loss(batch).value, expected)


def test_diffusion_nft_loss_is_the_formula():
    config = methods.get("diffusion_nft").Config(beta=0.3, guidance_strength=0.5)
    method = methods.get("diffusion_nft")(config, 32)
    (b,) = make_batches(method, torch.full((1,), 1.2), make_rollout())
    t = b.t[:, None, None, None]
    x_t = (1 - t) * b.x0 + t * b.noise
    r = 0.5 + b.advantages.clamp(-5, 5) / 10
    errors = []
    for v in (0.5 * b.old_velocity + 0.5 * b.velocity, 1.5 * b.old_velocity - 0.5 * b.velocity):
        error = x_t - t * v - b.x0
        errors.append((error**2).mean((1, 2, 3)) / error.abs().mean((1, 2, 3)))
    policy = ((r * errors[0] + (1 - r) * errors[1]) * 5 / 0.5).mean()
    kl = ((b.velocity - b.reference_velocity) ** 2).mean()
    assert torch.allclose(method.loss(b).value, policy + 0.3 * kl)


def test_an_unknown_method_names_the_valid_ones():
    with pytest.raises(ValueError, match="gardo"):
        methods.get("no_such_method")


def test_gardo_resets_its_reference_by_threshold_and_by_time():
    algorithm = methods.get("gardo")
    method = algorithm(algorithm.Config(reset_after=3), latent_dimensions=65536)
    assert not method.after_update(0.9e-4)
    assert method.after_update(1.1e-4)
    assert [method.after_update(0.0) for _ in range(3)] == [False, False, True]
    static = algorithm(algorithm.Config(adaptive_reference=False), latent_dimensions=512)
    assert not static.after_update(1e9)


def test_gardo_asks_only_for_what_its_parts_need():
    config = methods.get("gardo").Config
    plain = config(diversity=False, gated=False, adaptive_reference=False)
    assert plain.needs() == methods.Needs(reference="all")
    assert config().needs() == methods.Needs(
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
    needs = method.config.needs()
    assert needs.reference == "none" and not needs.adaptive_reference and needs.auxiliary
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


class Thresholds(MethodConfig):
    clip_range: ClipRange = 1e-4
    kl_threshold: KLThreshold = 1e-4
    beta: float = 0.04


class Plain(Method):
    name = "plain"
    Config = Thresholds

    def loss(self, batch):
        return Loss(batch.log_prob.sum())


@pytest.mark.parametrize(
    "dimensions, clip_range, kl_threshold",
    [(PAPER_DIMENSIONS, 1e-4, 1e-4), (512, 1e-3, 0.0128), (2048, 6e-4, 3.2e-3), (262144, 5e-5, 2.5e-5)],
)
def test_thresholds_of_any_method_are_carried_over_to_the_latent_at_hand(
    dimensions, clip_range, kl_threshold
):
    config = Plain(Thresholds(), dimensions).config
    assert (config.clip_range, config.kl_threshold) == pytest.approx((clip_range, kl_threshold), rel=1e-12)
    assert config.beta == 0.04
    assert Plain(Thresholds(clip_range=1.25e-4), PAPER_DIMENSIONS).config.clip_range == 1.25e-4
    with pytest.raises(ValueError, match="greater than 0"):
        Thresholds(clip_range=0)


def test_a_method_without_images_needs_no_advantages_and_others_are_told():
    with pytest.raises(NotImplementedError, match=r"methods/plain.py makes no advantages"):
        Plain(Thresholds(), 512).prepare(make_rollout())


@pytest.mark.parametrize(
    "needs, message",
    [
        (Needs(process="forward", data=True), r"'forward' cannot serve data = True; valid: False"),
        (Needs(process="data"), r"'data' cannot serve data = False; valid: True"),
        (Needs(process="data", data=True, reference="all"), r"'data' cannot serve reference = 'all'.*'none'"),
        (Needs(process="backward"), r"unknown process 'backward'; valid: data, forward, reverse"),
    ],
)
def test_needs_that_no_process_serves_are_refused(needs, message):
    with pytest.raises(ValueError, match=message):
        processes.get(needs.process).check(needs)


def test_what_is_no_plug_in_needs_no_list(tmp_path, monkeypatch):
    """A helper beside the plug-ins, even one that cannot be imported, is none, and a wrong name is said."""
    package = tmp_path / "package_of_methods"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "helper.py").write_text("raise ImportError('not to be imported')\nname = 'helper'\n")
    (package / "one.py").write_text(
        "from methods import Method\n\n\nclass One(Method):\n    name = 'one'\n    loss = None\n"
    )
    (package / "two.py").write_text("class Two:\n    name = 'two'\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = Plugins("package_of_methods", "method", Method)
    assert found.names() == ["one", "two"]
    assert found.get("one").name == "one"
    with pytest.raises(ValueError, match=r"package_of_methods/two.py holds no Method subclass"):
        found.get("two")
    for wrong in ("helper", "../one", "three"):
        with pytest.raises(ValueError, match="unknown method .*; valid: one, two"):
            found.get(wrong)


@pytest.mark.parametrize("unflagged", ["zero", "all"])
@pytest.mark.parametrize("flagged", [0.0, 0.04, 0.3, 1.0])
def test_the_official_average_is_that_of_rows_dealt_at_random(unflagged, flagged):
    rng, size, count = torch.Generator().manual_seed(3), 9, 2_000
    rows = size * count
    kl = torch.rand(rows, generator=rng, dtype=torch.float64) + 1
    gate = torch.rand(rows, generator=rng) < flagged
    kl[gate] += 2
    dealt = micro_batch_kl(kl, gate, torch.arange(rows) // size, unflagged).mean()
    counts = rows, int(gate.sum())
    whole = dealt_kl(kl, gate, *counts, size, unflagged)
    assert whole.item() == pytest.approx(dealt.item(), rel=0.05, abs=1e-12)
    parts = [
        dealt_kl(k, g, *counts, size, unflagged)
        for k, g in zip(kl.split(7001), gate.split(7001), strict=True)
    ]
    assert sum(parts).item() == pytest.approx(whole.item())


def test_images_without_an_advantage_may_leave_the_gradient_step():
    """Of three groups the first is tied: as coded it is not trained on and not counted."""
    method = methods.get("gardo")
    config = method.Config(diversity=False, zero_advantages="official_code", gate_share=1.0)
    rollout = make_rollout()
    rollout.rewards[rollout.groups == 0] = 0.7
    prepared = method(config, 32).prepare(rollout)
    assert prepared.trained.tolist() == (rollout.groups != 0).tolist()
    experience = make_experience(prepared, rollout.groups, torch.Generator().manual_seed(0))
    rows = Rows.of(experience, torch.arange(len(rollout.groups)), torch.arange(2))
    assert rows.total == len(rows) == 2 * int(prepared.trained.sum())
    assert not torch.isin(rows.image, (rollout.groups == 0).nonzero().squeeze(1)).any()
    rollout.rewards[:] = 0.7
    assert method(config, 32).prepare(rollout).trained is None  # nobody is left: nobody is dropped
    assert method(method.Config(), 32).prepare(make_rollout()).trained is None
