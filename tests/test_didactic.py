"""The Gaussian mixture: its densities, the experiment with the suite's own methods, table and figure."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from core.settings import ConfigError
from didactic import checks, experiment, grid, map_report, mixture, policy, report, theorem
from didactic.configuration import jobs_of_map, load

CONFIG = "config/gaussian_mixture.yaml"
SHORT = {"iterations": 4, "measurements": 2}
STORED = Path("docs/results/gaussian_mixture_map/settings.csv")


@pytest.fixture(scope="module")
def base():
    return policy.pretrain(0, updates=300)


def test_the_central_cluster_has_a_tenth_of_the_density_and_the_highest_reward():
    points = mixture.sample(200_000, torch.Generator().manual_seed(0))
    centres, weights = mixture.clusters()
    nearest = torch.cdist(points, centres).argmin(1)
    shares = torch.bincount(nearest, minlength=len(centres)) / len(points)
    assert torch.allclose(shares, weights, atol=5e-3)
    assert weights[-1] / weights[0] == pytest.approx(mixture.CENTRE_DENSITY)
    for heights, expected in mixture.HEIGHTS.items():
        reward = mixture.Reward(0.5, heights)
        assert torch.allclose(reward(mixture.rewarded()), torch.tensor(expected))
        assert (mixture.Reward(1.0, heights)(points[:100]) >= reward(points[:100])).all()


def test_measures_count_modes_and_the_centre():
    on_two = mixture.rewarded()[[0, -1]].repeat(50, 1)
    found = mixture.measures(on_two, mixture.Reward(0.5, "graded"))
    assert found["modes"] == 2 and found["central_share"] == 0.5
    assert found["reward"] == pytest.approx((0.7 + 1.0) / 2)


def test_features_tell_near_from_far_and_coordinates_alone_see_no_centre():
    x = torch.tensor([[0.0, 0.0], [0.1, 0.0], [3.0, 0.0]])
    for name, maps in mixture.FEATURES.items():
        f = torch.nn.functional.normalize(maps(x), dim=1)
        assert f[1] @ f[1] > 0.99
        if name == "coordinates":
            assert f[1] @ f[2] > 0.999
        else:
            assert f[0] @ f[1] > 0.9 > f[0] @ f[2]


def test_rarity_is_one_over_the_share_of_the_cluster():
    centres, _ = mixture.clusters()
    x = torch.cat([centres[:1].repeat(9, 1), centres[-1:]])
    assert torch.allclose(mixture.rarity(x), torch.tensor([10 / 9] * 9 + [10.0]))


def test_shuffled_rewards_keep_each_groups_values_and_leave_their_samples():
    rewards = torch.arange(64.0)
    shuffled = experiment._shuffled(rewards, 32, torch.Generator().manual_seed(0))
    assert (shuffled != rewards).any()
    for rows in (slice(0, 32), slice(32, 64)):
        assert torch.equal(shuffled[rows].sort().values, rewards[rows])


@pytest.mark.parametrize("name", list(load(CONFIG).rows))
def test_every_row_trains_a_little_and_repeats_itself(base, name):
    config = load(CONFIG)
    row, setting = config.rows[name], config.setting.model_copy(update=SHORT)
    first, second = (experiment.run(base, row, setting, seed=3) for _ in range(2))
    assert first.scores.equals(second.scores) and torch.equal(first.samples, second.samples)
    assert first.scores["value"].notna().all()
    steps = [0] if row.algorithm is None else [0, 2, 4]
    assert sorted(first.scores["step"].unique()) == steps


def test_the_report_holds_every_row(base, tmp_path, monkeypatch):
    from safetensors.torch import save_file

    monkeypatch.setattr(experiment, "MEASURED", 200)
    config = load(CONFIG)
    names = ("base", "gardo", config.checks.reward_row, config.checks.control_row)
    config = config.model_copy(
        update={
            "rows": {name: config.rows[name] for name in names},
            "setting": config.setting.model_copy(update=SHORT),
        }
    )
    folders = []
    for name, row in config.rows.items():
        for seed in (0, 1):
            outcome = experiment.run(base, row, config.setting, seed)
            folder = tmp_path / f"{name}__s{seed}"
            folder.mkdir()
            outcome.scores.assign(method=name, seed=seed).to_parquet(folder / "scores.parquet")
            save_file({"samples": outcome.samples}, folder / "samples.safetensors")
            folders.append(folder)
    report.write(folders, config, tmp_path / "out")
    text = (tmp_path / "out/table.md").read_text()
    assert "GARDO" in text and "2 seeds" in text
    assert "the reward is not learnt" in text  # in four iterations
    scores = pd.read_parquet(tmp_path / "out/scores.parquet")
    assert checks.CENTRAL_MODE_FOUND not in set(scores["measure"])
    assert len(pd.read_csv(tmp_path / "out/table.csv")) == 3 * len(names)
    assert (tmp_path / "out/samples.png").stat().st_size > 10_000


def curves(reward, control, modes=4.0, control_share=0.01):
    """Scores of a landscape with these mean rewards, evenly spaced over training."""
    parts = []
    for method, values in (("ddpo_small_beta", reward), ("shuffled", control)):
        share = control_share if method == "shuffled" else 0.0
        constant = {"modes": modes, "central_share": share}
        for measure, series in (("reward", values), *((k, [v] * len(values)) for k, v in constant.items())):
            length = [i / (len(values) - 1) for i in range(len(values))]
            part = pd.DataFrame({"length": length, "value": series})
            parts.append(part.assign(method=method, measure=measure, seed=0, heights="graded"))
    return pd.concat(parts)


RISING, FLAT = [0.2, 0.5, 0.7, 0.88, 0.9], [0.2, 0.21, 0.19, 0.2, 0.2]


@pytest.mark.parametrize(
    "reward, control, modes, length, failed",
    [
        (RISING, FLAT, 4.0, 1.0, ()),
        (RISING, FLAT, 4.0, 0.75, ("growth",)),
        ([0.2, 0.3, 0.3, 0.3, 0.3], [0.2] * 5, 4.0, 1.0, ("rise",)),
        ([0.2, 0.6, 0.9, 0.82, 0.8], FLAT, 4.0, 1.0, ("fall",)),
        (RISING, FLAT, 1.0, 1.0, ("modes",)),
        (RISING, [0.2, 0.15, 0.1, 0.05, 0.2], 4.0, 1.0, ("drift",)),
        ([0.2] * 5, FLAT, 4.0, 1.0, ("rise", "modes", "drift")),
    ],
)
def test_each_check_fails_for_its_own_reason(reward, control, modes, length, failed):
    outcome = checks.check(curves(reward, control, modes), length, load(CONFIG).checks)
    assert outcome.failed == failed and outcome.passes == (not failed)


def test_a_control_that_finds_the_central_mode_spoils_the_setting():
    lucky = curves(RISING, FLAT, control_share=0.05)
    outcome = checks.check(lucky, 1.0, load(CONFIG).checks)
    assert outcome.failed == ("chance",) and "find the central mode" in checks.describe(outcome)


def test_checks_without_the_control_say_so():
    with pytest.raises(ValueError, match="'shuffled'"):
        lone = curves(RISING, FLAT)[lambda rows: rows["method"] != "shuffled"]
        checks.check(lone, 1.0, load(CONFIG).checks)


@pytest.fixture(scope="module")
def small_map(base):
    """A configuration with little of each grid, and its scores: trained for four iterations, but with rewards
    that pass the checks at the first learning rate."""
    config = load(CONFIG)
    names = ["ddpo_small_beta", "shuffled", "gardo"]
    short = {
        name: part.model_copy(
            update={
                "rows": names,
                "trainings": [
                    t.model_copy(update={"iterations": 8, "samples": 256 * (i + 1)})
                    for i, t in enumerate(part.trainings[: 2 if name == "batch_size" else 1])
                ],
                "landscapes": part.landscapes[:1],
                "shapings": part.shapings[-1:],
            }
        )
        for name, part in config.map.grids.items()
    }
    config = config.model_copy(
        update={"map": config.map.model_copy(update={"grids": short, "seeds": [0, 1], "lengths": [0.5, 1.0]})}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(policy, "pretrain", lambda seed: base)
        patch.setattr(experiment, "MEASURED", 200)
        scores = pd.concat([grid.train(config, *job) for job in jobs_of_map(config)], ignore_index=True)
    rewards = dict(
        zip([i / 8 for i in range(9)], [0.2, 0.4, 0.6, 0.8, 0.85, 0.88, 0.9, 0.9, 0.9], strict=True)
    )
    rate = short["settings"].trainings[0].learning_rate
    good = (scores["measure"] == "reward") & (scores["learning_rate"] == rate)
    control = scores["method"] == config.checks.control_row
    scores.loc[control & (scores["measure"] == "central_share"), "value"] = 0.01
    for method, values in ((config.checks.reward_row, rewards), (config.checks.control_row, {})):
        mine = good & (scores["method"] == method)
        scores.loc[mine, "value"] = scores.loc[mine, "length"].map(
            lambda at, values=values: values.get(at, 0.2)
        )
    return config, scores


def test_the_map_is_judged_where_the_checks_pass(small_map, tmp_path):
    config, scores = small_map
    files = []
    for (name, rate), part in scores.groupby(["grid", "learning_rate"]):
        files.append(tmp_path / f"{name}__{rate}.parquet")
        part.to_parquet(files[-1])
    map_report.write(files, config, tmp_path / "out")
    evidence = pd.read_parquet(tmp_path / "out/scores.parquet")
    found = evidence[evidence["measure"] == checks.CENTRAL_MODE_FOUND]
    assert set(found["learning_rate"]) == {config.map.grids["settings"].trainings[0].learning_rate}
    assert set(found["length"]) == {1.0} and set(found["value"]) <= {0.0, 1.0}
    # Every row at the same settings, those without features included.
    assert found.groupby("method")["setting"].nunique().nunique() == 1
    text = (tmp_path / "out/table.md").read_text()
    assert "1 of " in text and "Where the central mode is found" in text
    for picture in config.map.grids:
        assert (tmp_path / f"out/{picture}.png").stat().st_size > 10_000


def test_no_row_with_diversity_can_pass_or_choose_a_setting(small_map):
    config, scores = small_map
    checked = checks.table(scores, config.map.lengths, config.checks)
    others = ~scores["method"].isin([config.checks.reward_row, config.checks.control_row])
    ruined = scores.assign(value=scores["value"].where(~others, -1.0))
    assert checks.table(ruined, config.map.lengths, config.checks).equals(checked)


def test_the_single_experiments_setting_is_the_one_that_the_rule_chose():
    if not STORED.exists():
        pytest.skip("no map is stored")
    config, stored = load(CONFIG), pd.read_csv(STORED)
    choice = checks.choose(stored.drop_duplicates([*checks.LANDSCAPE, "step"]), config.setting.heights)
    for key in ("learning_rate", "samples", "reward_width", "heights"):
        assert choice[key] == getattr(config.setting, key), key
    assert choice["step"] == config.setting.iterations


def test_an_unknown_grid_or_rate_names_the_valid_ones():
    config = load(CONFIG)
    with pytest.raises(ValueError, match="batch_size"):
        list(grid.planned(config, "tiny", 1e-3))
    with pytest.raises(ValueError, match="0.001"):
        list(grid.planned(config, "batch_size", 7.0))


def test_a_wrong_row_names_the_valid_values(tmp_path):
    path = tmp_path / "mixture.yaml"
    text = Path(CONFIG).read_text()
    head = text[: text.index("rows:\n  base:")]
    rows = "rows: {" + ", ".join(f"{name}: {{label: x}}" for name in load(CONFIG).rows) + "}"
    path.write_text(head + rows.replace("base: {label: x}", "base: {label: x, algorithm: magic}"))
    with pytest.raises(ConfigError, match=r"row 'base'.*gardo"):
        load(path)
    wrong = "base: {label: x, algorithm: gardo, parameters: {bta: 1}}"
    path.write_text(head + rows.replace("base: {label: x}", wrong))
    with pytest.raises(ConfigError, match=r"bta.*beta"):
        load(path)
    path.write_text(text.replace("control_row: shuffled", "control_row: mixed"))
    with pytest.raises(ConfigError, match=r"checks.control_row.*'mixed'.*shuffled|lacks mixed"):
        load(path)
    path.write_text(text.replace("group_size: 256}\n    batch", "group_size: 7}\n    batch"))
    with pytest.raises(ConfigError, match=r"settings.*group_size 7 does not divide samples 512"):
        load(path)


def test_ddrl_approaches_its_closed_form_optimum(monkeypatch, tmp_path):
    monkeypatch.setattr(theorem, "UPDATES", 120)
    monkeypatch.setattr(theorem, "EVERY", 40)
    rows = theorem.run("ddrl", dimensions=1, seed=0)
    before, after = rows["distance"].iloc[[0, -1]]
    assert after < 0.4 * before
    path = tmp_path / "run.parquet"
    rows.to_parquet(path)
    rows.assign(method="reverse_kl").to_parquet(tmp_path / "other.parquet")
    report.write_theorem([path, tmp_path / "other.parquet"], tmp_path / "out")
    assert "| DDRL | 1 |" in (tmp_path / "out/table.md").read_text()


def test_the_forward_kl_is_least_where_the_velocity_is_the_datas():
    """Its gradient vanishes at the exact conditional expectation, here that of one Gaussian cluster."""
    rng = torch.Generator().manual_seed(0)
    spread, n = 0.5, 200_000

    class Exact(torch.nn.Module):
        shift = torch.zeros(1, requires_grad=True)
        dimensions = 1

        def forward(self, x, sigma):
            s = sigma[:, None]
            return x * (s - (1 - s) * spread**2) / ((1 - s) ** 2 * spread**2 + s**2) + self.shift

    model = Exact()
    theorem.forward_kl(model, spread * torch.randn(n, 1, generator=rng), rng).backward()
    at_optimum = model.shift.grad.abs().item()
    model.shift.grad = None
    with torch.no_grad():
        model.shift += 0.5
    theorem.forward_kl(model, spread * torch.randn(n, 1, generator=rng), rng).backward()
    assert at_optimum < 0.05 * model.shift.grad.abs().item()
