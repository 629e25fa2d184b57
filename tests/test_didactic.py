"""The Gaussian mixture: its densities, the experiment with the suite's own methods, table and figure."""

import pandas as pd
import pytest
import torch

from didactic import experiment, mixture, policy, report, theorem
from didactic.configuration import load
from training.configuration import ConfigError

CONFIG = "config/gaussian_mixture.yaml"


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
    assert torch.allclose(mixture.reward(mixture.rewarded()), torch.tensor(mixture.HEIGHTS))


def test_measures_count_modes_and_the_centre():
    on_two = mixture.rewarded()[[0, -1]].repeat(50, 1)
    found = mixture.measures(on_two)
    assert found["modes"] == 2 and found["central_share"] == 0.5
    assert found["reward"] == pytest.approx((mixture.HEIGHTS[0] + mixture.HEIGHTS[-1]) / 2)


def test_features_tell_near_from_far():
    x = torch.tensor([[0.0, 0.0], [0.1, 0.0], [3.0, 0.0]])
    f = torch.nn.functional.normalize(mixture.features(x), dim=1)
    assert f[0] @ f[1] > 0.9 > f[0] @ f[2]


@pytest.mark.parametrize("name", list(load(CONFIG).rows))
def test_every_row_trains_a_little_and_repeats_itself(base, name, monkeypatch):
    monkeypatch.setattr(experiment, "ITERATIONS", 4)
    monkeypatch.setattr(experiment, "EVERY", 2)
    row = load(CONFIG).rows[name]
    first, second = (experiment.run(base, row.algorithm, row.parameters, seed=3) for _ in range(2))
    assert first.scores.equals(second.scores) and torch.equal(first.samples, second.samples)
    assert first.scores["value"].notna().all()
    steps = [0] if row.algorithm is None else [0, 2, 4]
    assert sorted(first.scores["step"].unique()) == steps


def test_the_report_holds_every_row(base, tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "ITERATIONS", 2)
    monkeypatch.setattr(experiment, "EVERY", 2)
    from safetensors.torch import save_file

    rows = {k: v for k, v in load(CONFIG).rows.items() if k in ("base", "gardo")}
    folders = []
    for name, row in rows.items():
        for seed in (0, 1):
            outcome = experiment.run(base, row.algorithm, row.parameters, seed)
            folder = tmp_path / f"{name}__s{seed}"
            folder.mkdir()
            outcome.scores.assign(method=name, seed=seed).to_parquet(folder / "scores.parquet")
            save_file({"samples": outcome.samples}, folder / "samples.safetensors")
            folders.append(folder)
    report.write(folders, {k: v.label for k, v in rows.items()}, tmp_path / "out")
    text = (tmp_path / "out/table.md").read_text()
    assert "GARDO" in text and "2 seeds" in text
    assert len(pd.read_csv(tmp_path / "out/table.csv")) == 6
    assert (tmp_path / "out/samples.png").stat().st_size > 10_000


def test_a_wrong_row_names_the_valid_values(tmp_path):
    path = tmp_path / "mixture.yaml"
    path.write_text("seeds: [0]\nrows: {x: {label: x, algorithm: magic}}\n")
    with pytest.raises(ConfigError, match=r"row 'x'.*gardo"):
        load(path)
    path.write_text("seeds: [0]\nrows: {x: {label: x, algorithm: gardo, parameters: {bta: 1}}}\n")
    with pytest.raises(ConfigError, match=r"bta.*beta"):
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
