"""Controls: what they permute, optimise, draw and plant is exactly what they say."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

import methods
import rewards
from core.files import to_yaml
from core.seeding import generator
from core.settings import ConfigError, merged
from evaluation.configuration import load_evaluation, roles
from methods import Rollout
from processes.collect import groups_without_spread, shuffled
from rewards.shortcut import EXPLOIT
from runs import config_files, resolve
from scenes import prompts as prompt_sets
from scenes.gold import gold_factors, gold_reward
from scenes.renderer import render_many
from scenes.vocabulary import BACKGROUNDS
from scenes.wall import tone_offset
from training.trainer import Trainer

GROUPS = torch.tensor([3, 3, 3, 3, 1, 1, 1, 1, 2, 2, 2, 2])
SHORT = {"iterations": 4, "monitor_every": 2, "prompts_per_iteration": 2, "group_size": 6}


def make_rollout(seed: int = 0) -> Rollout:
    torch.manual_seed(seed)
    n = len(GROUPS)
    return Rollout(
        torch.rand(n), GROUPS, torch.rand(2, n), torch.randn(n, 8), torch.Generator().manual_seed(seed)
    )


def history_of(folder: Path, task: str, method: str) -> pd.Series:
    run = resolve.resolve_run("tiny-sd3", task, method, 5, {"training": SHORT})
    folder.mkdir()
    (folder / "run.yaml").write_text(to_yaml(run.model_dump()))
    Trainer(run, folder).run()
    return pd.read_parquet(folder / "history.parquet").set_index(["step", "name"])["value"]


def test_shuffling_keeps_each_groups_numbers_and_breaks_their_tie_to_images():
    values = torch.arange(12.0)
    mixed = shuffled(values, GROUPS, generator("a test"))
    for group in GROUPS.unique():
        assert sorted(mixed[GROUPS == group]) == sorted(values[GROUPS == group])
    assert not torch.equal(mixed, values)
    assert torch.equal(mixed, shuffled(values, GROUPS, generator("a test")))
    draws = torch.stack([shuffled(values, GROUPS, generator("a test", i)) for i in range(600)])
    expected = torch.tensor([1.5] * 4 + [5.5] * 4 + [9.5] * 4)
    assert torch.allclose(draws.mean(0), expected, atol=0.25)  # every image gets every reward of its group


def test_groups_without_spread():
    rollout = make_rollout()
    assert groups_without_spread(rollout) == 0
    rollout.rewards[GROUPS == 2] = 0.5
    assert groups_without_spread(rollout) == pytest.approx(1 / 3)


def test_what_is_logged_of_a_shuffled_run_is_the_true_reward(tmp_path):
    """Until the first update has moved the policy, both runs see the same images."""
    plain = history_of(tmp_path / "plain", "ocr", "grpo")
    control = history_of(tmp_path / "control", "ocr", "grpo_shuffled")
    for name in ("reward/proxy_mean", "reward/proxy_std", "train/groups_without_spread"):
        assert control[1, name] == plain[1, name]
    assert control[1, "train/gradient_norm"] != plain[1, "train/gradient_norm"]
    assert control[4, "reward/proxy_mean"] != plain[4, "reward/proxy_mean"]


def test_the_oracle_is_given_gold_and_logs_the_proxy(tmp_path, monkeypatch):
    seen = []
    algorithm = methods.get("grpo")
    prepare = algorithm.prepare
    monkeypatch.setattr(algorithm, "prepare", lambda self, r: seen.append(r.rewards) or prepare(self, r))
    logged = history_of(tmp_path / "run", "ocr", "grpo_oracle")
    assert seen[1].mean().item() == pytest.approx(logged[2, "reward/gold_mean"])
    assert seen[1].mean().item() != pytest.approx(logged[2, "reward/proxy_mean"])


def test_a_history_holds_the_diagnostics_and_the_parts_of_rewards(tmp_path):
    logged = history_of(tmp_path / "run", "geneval_shortcut_weak", "grpo")
    names = set(logged.index.get_level_values("name"))
    monitored = config_files.load_task("geneval_shortcut_weak").monitor
    assert {f"reward/{name}_mean" for name in monitored} <= names
    assert {
        f"train/{n}" for n in ("ratio_mean", "ratio_deviation", "clipped_share", "policy_distance")
    } <= names
    assert {"train/signal_to_noise", "train/groups_without_spread", "reward/gold.background_mean"} <= names
    assert logged[1, "train/ratio_mean"] == pytest.approx(1)
    assert logged[1, "train/signal_to_noise"] == pytest.approx(1)  # the first gradient is all there is
    assert logged[3, "train/policy_distance"] > 0
    honest, shortcut = (logged[2, f"reward/proxy.{part}_mean"] for part in ("honest", "shortcut"))
    assert logged[2, "reward/proxy_mean"] == pytest.approx(honest + 0.5 * shortcut, abs=1e-5)


def test_a_random_gate_draws_as_many_samples_from_all():
    plain, drawn = (
        methods.get("gardo")(methods.get("gardo").Config(gate_share=0.25, gate_choice=choice), 512)
        for choice in ("uncertainty", "random")
    )
    hits = torch.zeros(len(GROUPS))
    for seed in range(400):
        rollout = make_rollout()
        rollout.generator = torch.Generator().manual_seed(seed)
        chosen, wanted = drawn.prepare(rollout).gate, plain.prepare(make_rollout()).gate
        assert chosen.sum() == wanted.sum() == 3
        hits += chosen
    assert (hits / 400 - 0.25).abs().max() < 0.1


def test_gold_is_the_product_of_its_factors():
    prompts = prompt_sets.split()["geneval_test"][::4] + prompt_sets.split()["ocr_test"][::4]
    images = render_many(prompts, 0) / 255
    factors = gold_factors(images, prompts)
    assert np.allclose(gold_reward(images, prompts), [math.prod(f.values()) for f in factors])
    assert all(0 <= v <= 1 for f in factors for v in f.values())
    components = rewards.get("gold").components(
        torch.from_numpy(images).permute(0, 3, 1, 2).float(), [p["prompt"] for p in prompts], prompts
    )
    assert components["legibility"].isnan().sum() == sum("sign" not in p for p in prompts)


@pytest.mark.parametrize("name", ["geneval_test", "ocr_test"])
def test_a_drawn_scene_takes_no_shortcut_and_a_repainted_wall_does(name):
    prompts = prompt_sets.split()[name]
    images = render_many(prompts, 0) / 255
    offset = tone_offset(images)
    assert offset.max() < 0.04
    lifted = np.clip(images + np.where(images.mean((1, 2, 3), keepdims=True) > 0.5, -0.1, 0.1), 0, 1)
    assert (tone_offset(lifted) > 0.05).all()
    taken = rewards.get("exploit_rate")(
        torch.from_numpy(lifted).permute(0, 3, 1, 2).float(), [p["prompt"] for p in prompts], prompts
    )
    assert torch.equal(taken, torch.from_numpy(tone_offset(lifted) >= EXPLOIT).float())
    assert (
        taken.mean() > 0.5 and gold_reward(lifted, prompts).mean() < 0.6 * gold_reward(images, prompts).mean()
    )


@pytest.mark.parametrize("name", [n for n in rewards.names() if "shortcut" in n])
def test_the_bonus_is_the_stated_one(name):
    cls = rewards.get_class(name)
    prompt = {"prompt": 'a red sign "A2"', "tag": "text", "background": "white", "include": []}
    circle = {"class": "circle", "count": 1, "motion": {"kind": "still"}}
    prompt["include"] = [] if "ocr" in name else [circle]
    clip = cls.medium == "clip"
    for tone, strength in ((BACKGROUNDS["white"], 0.0), (0.88, 0.5), (0.5, 1.0)):
        image = torch.full((1, 9, 3, 32, 32) if clip else (1, 3, 32, 32), tone)
        score = rewards.get(name)(image, [prompt["prompt"]], [prompt])
        honest = rewards.get(cls.honest)(image, [prompt["prompt"]], [prompt])
        assert (score - honest).item() == pytest.approx(cls.bonus * strength, abs=1e-4)


# --- configuration -------------------------------------------------------------------------------


def test_files_extend_each_other(tmp_path, monkeypatch):
    assert merged({"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"c": 3}, "d": [2]}) == {
        "a": {"b": 1, "c": 3},
        "d": [2],
    }
    control, plain = config_files.load_method("gardo_random_gate"), config_files.load_method("gardo")
    assert control.parameters == {**plain.parameters, "gate_choice": "random"}
    folder = tmp_path / "methods"
    folder.mkdir()
    for name, value in {"a": {"extends": "b"}, "b": {"extends": "a"}, "c": {"extends": "nothing"}}.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(value))
    monkeypatch.setattr(config_files, "CONFIG", tmp_path)
    with pytest.raises(ConfigError, match=r"[ab].yaml: key 'extends' leads in a circle"):
        config_files.load_method("a")
    with pytest.raises(ConfigError, match=r"c.yaml: key 'extends' names 'nothing'; valid: a, b, c"):
        config_files.load_method("c")


def test_a_share_of_the_run_becomes_gradient_steps():
    runs = {
        n: resolve.resolve_run("tiny-sd3", "ocr", "gardo", 1, {"training": {"iterations": n}})
        for n in (60, 600)
    }
    assert {n: run.parameters["reset_after"] for n, run in runs.items()} == {60: 10, 600: 100}
    for wrong in ({"share_of_run": 2}, {"share_of_run": True}, {"share": 0.1}):
        with pytest.raises(ConfigError, match=r"parameters of gardo.*'reset_after'.*valid"):
            resolve.resolve_run("tiny-sd3", "ocr", "gardo", 1, {"parameters": {"reset_after": wrong}})


def test_the_oracle_needs_a_task_with_gold():
    with pytest.raises(ConfigError, match=r"'optimised_reward' is 'gold'.*paper_ocr.yaml names no 'gold'"):
        resolve.resolve_run("sd3.5-medium", "paper_ocr", "grpo_oracle", 1, {})


def test_a_late_control_is_the_plain_run_until_it_starts(tmp_path):
    late, plain = (history_of(tmp_path / m, "ocr", m) for m in ("grpo_shuffled_late", "grpo"))
    for step in (1, 2, 3):  # 0.6 of 4 iterations: the third is the first shuffled one
        same = late[step, "train/gradient_norm"] == plain[step, "train/gradient_norm"]
        assert same == (step < 3)
        assert late[step, "reward/proxy_mean"] == plain[step, "reward/proxy_mean"]


def test_a_shortcut_belongs_to_the_proxy_only_where_it_is_planted():
    evaluation = load_evaluation()
    planted, plain = (
        roles(config_files.load_task(name), evaluation) for name in ("geneval_shortcut_weak", "geneval")
    )
    assert planted["exploit_rate"] == planted["geneval"] == planted["geneval_shortcut_weak"] == "proxy"
    assert "exploit_rate" not in plain and plain["geneval"] == "proxy"
