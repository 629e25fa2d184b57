"""Baselines: off-policy gradient steps, compared images, and rows that are evaluated without training."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import methods
from base_models.base import ADAPTER_FILE
from core.files import to_yaml
from core.settings import ConfigError, parse
from evaluation.configuration import load_evaluation, run_evaluation
from evaluation.evaluate import evaluate_run
from evaluation.sample import sample_run
from evaluation.scores import COLUMNS, KL
from methods.flow_dpo import preference_pairs
from methods.maths.best_of_n import best_of_n, best_of_n_kl, rank_weights
from processes.rows import Rows
from runs import resolve
from runs.config_files import load_task
from runs.configuration import MethodFile, load_run
from tests.test_methods import GROUPS, make_rollout, off_policy_batch
from tests.test_training import make_run
from tests.toy_process import make_batches, make_experience
from training.trainer import Trainer


def test_best_of_n_is_the_mean_over_all_subsets():
    torch.manual_seed(0)
    rewards, gold = torch.rand(2, 6), torch.rand(2, 6)
    subsets = torch.combinations(torch.arange(6), 3)
    for reward, value, found in zip(rewards, gold, best_of_n(rewards, gold, 3), strict=True):
        best = subsets[torch.arange(len(subsets)), reward[subsets].argmax(1)]
        assert found == pytest.approx(value[best].mean().item())
    assert rank_weights(6, 3).sum() == pytest.approx(1)
    assert best_of_n_kl(1) == 0 and best_of_n_kl(4) == pytest.approx(0.6363, abs=1e-4)
    with pytest.raises(ValueError, match="best of 7 cannot be estimated from 6"):
        best_of_n(rewards, gold, 7)


def test_images_of_equal_reward_share_their_values():
    rewards, gold = torch.tensor([[1.0, 0.0, 1.0]]), torch.tensor([[5.0, 9.0, 1.0]])
    assert best_of_n(rewards, gold, 3).item() == 3
    assert best_of_n(rewards, gold, 1).item() == 5


def test_flow_dppo_leaves_out_only_what_would_lead_further_away():
    config = methods.get("flow_dppo").Config(trust_region=1e-9)
    method = methods.get("flow_dppo")(config, 65_536)
    batch = off_policy_batch(method)
    batch.old_mean = batch.mean.detach() + 1.0  # all rows lie outside
    ratio = (batch.log_prob - batch.old_log_prob).exp()
    away = (ratio - 1) * batch.advantages > 0
    loss = method.loss(batch)
    expected = torch.where(away, torch.zeros_like(ratio), -batch.advantages * ratio).mean()
    assert torch.allclose(loss.value, expected) and 0 < away.sum() < len(ratio)
    assert loss.logged["masked_share"] == pytest.approx(away.double().mean().item())
    assert loss.logged["outside_share"] == 1


@pytest.mark.parametrize("centring", ["prompt", "level"])
def test_crd_does_not_see_what_all_compared_images_share(centring):
    """Rewards enter after centring, so one added to all changes nothing; one added to a prompt does."""
    config = methods.get("crd").Config(centring=centring, kl_coefficient=0.0)
    method = methods.get("crd")(config, 32)
    losses = []
    for shift in (0.0, torch.tensor(0.4), 0.4 * GROUPS):
        (batch,) = make_batches(method, torch.ones(1), make_rollout())
        batch.advantages = batch.advantages * 0.5 + (
            shift if torch.is_tensor(shift) and shift.dim() == 0 else 0
        )
        if torch.is_tensor(shift) and shift.dim():
            batch.advantages = batch.advantages + shift.repeat(2)
        losses.append(method.loss(batch).value.item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert (losses[2] == pytest.approx(losses[0], rel=1e-4)) == (centring == "prompt")


def test_flow_dpo_trains_two_images_of_each_prompt_and_learns_nothing_of_equal_ones():
    rewards = torch.tensor([0.1, 0.9, 0.5, 0.3, 0.3, 0.3])
    method = methods.get("flow_dpo")(methods.get("flow_dpo").Config(), 32)
    rollout = make_rollout()
    rollout.rewards = rewards
    prepared = method.prepare(rollout)
    assert prepared.advantages.tolist() == [-1, 1, 0, 0, 0, 0]
    assert prepared.trained.tolist() == [True, True, False, True, True, False]
    assert prepared.metrics == {"pairs": 1}
    chosen, rejected = preference_pairs(rewards, GROUPS, "second_and_first")
    assert (chosen.tolist(), rejected.tolist()) == ([1, 4], [0, 3])
    parameter = torch.ones(1, requires_grad=True)
    (batch,) = make_batches(method, parameter, rollout)
    assert len(batch.t) == batch.rows == 8  # two levels
    method.loss(batch).backward()
    both = parameter.grad.item()
    rollout.rewards = torch.tensor([0.1, 0.9, 0.5, 0.3, 0.4, 0.3])
    (other,) = make_batches(method, parameter := torch.ones(1, requires_grad=True), rollout)
    method.loss(other).backward()
    assert parameter.grad.item() != pytest.approx(both)


@pytest.mark.parametrize("together, sizes", [("prompt", [3, 3, 3, 3]), ("level", [6, 6])])
def test_rows_that_are_compared_are_never_parted(together, sizes):
    prepared = methods.get("awm")(methods.get("awm").Config(), 32).prepare(make_rollout())
    experience = make_experience(prepared, GROUPS, torch.Generator().manual_seed(0))
    rows = Rows.of(experience, torch.arange(6), torch.tensor([0, 2]))
    parts = rows.by_comparison(together, 2)
    assert [len(part) for part in parts] == sizes
    assert torch.cat(parts).sort().values.tolist() == list(range(12))
    assert len(rows.by_comparison(together, 12)) == 1


def test_old_log_probabilities_of_a_later_step_are_those_of_the_rollouts_weights(tmp_path):
    """Before the policy moves every ratio of the second step is exactly 1, with merged weights as well."""
    run = load_run(make_run(tmp_path, "grpo_two_steps"))
    assert run.base_model.merged_dtype and run.training.gradient_steps == 2
    trainer = Trainer(run, tmp_path)
    steps = trainer.process.gradient_steps(trainer.process.collect(1))
    next(steps)  # no optimiser step follows
    for batch in next(steps):
        assert torch.equal(batch.log_prob.detach(), batch.old_log_prob)
        assert torch.equal(batch.mean.detach(), batch.old_mean)


@pytest.fixture
def settings(tmp_path):
    """Evaluation settings of two images per prompt on the first four test prompts."""
    task = load_task("ocr")
    evaluation = run_evaluation(load_evaluation({"images_per_prompt": 2}), task)
    prompts = tmp_path / "four.jsonl"
    lines = open(evaluation.suites["ocr"].prompts).read().splitlines()
    prompts.write_text("\n".join(lines[:4]) + "\n")
    suite = evaluation.suites["ocr"].model_copy(update={"prompts": str(prompts)})
    evaluation = evaluation.model_copy(update={"suites": {"ocr": suite}})
    path = tmp_path / "settings.yaml"
    path.write_text(to_yaml(evaluation.model_dump(mode="json")))
    return path


def test_a_best_of_n_row_is_scored_under_the_proxys_choice(tmp_path, settings):
    scores = {}
    for method in ("base", "best_of_4"):
        run = resolve.resolve_run("tiny-sd3", "ocr", method, 1, {})
        folder = tmp_path / run.run
        folder.mkdir()
        (folder / "run.yaml").write_text(to_yaml(run.content()))
        Trainer(load_run(folder), folder).run()
        out, out_images = folder / "scores.parquet", folder / "image_scores.parquet"
        evaluate_run(folder, settings, out, out_images)
        table = pd.read_parquet(out)
        assert list(table.columns) == COLUMNS and np.isfinite(table["value"]).all()
        scores[method] = table.set_index("metric")["value"]
        assert {"ocr_000000.parquet", "ocr_000000.png"} <= {p.name for p in (folder / "images").iterdir()}
    assert scores["best_of_4"]["ocr"] > scores["base"]["ocr"]
    assert scores["best_of_4"][KL] == pytest.approx(best_of_n_kl(4)) and scores["base"][KL] == 0
    assert {"gold", "diversity", "scene_preference_vit"} <= set(scores["best_of_4"].index)
    by_prompt = pd.read_parquet(out_images)
    assert len(by_prompt[by_prompt["metric"] == "gold"]) == 4
    before = (folder / "images" / "candidates.parquet").stat().st_mtime_ns
    evaluate_run(folder, settings, out, out_images)
    assert (folder / "images" / "candidates.parquet").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="keeps the best of 4 images"):
        sample_run(folder, load_run(folder), None)


def test_a_scaled_adapter_is_a_share_of_the_one_it_starts_from(tmp_path):
    first = make_run(tmp_path / "first", "grpo", iterations=1)
    Trainer(load_run(first), first).run()
    run = resolve.resolve_run("tiny-sd3", "counting", "grpo_scaled_0_25", 5, {}).content()
    assert run["training"]["iterations"] == 0 and run["start"]["scale"] == 0.25
    trained = load_run(first)
    (tmp_path / trained.run).symlink_to(first)
    run["start"]["hash"] = trained.hash
    folder = tmp_path / "scaled"
    folder.mkdir()
    (folder / "run.yaml").write_text(to_yaml(run))
    Trainer(load_run(folder), folder).run()
    whole, part = (load_file(f / "adapter" / ADAPTER_FILE) for f in (first, folder))
    for key, value in whole.items():
        assert torch.allclose(part[key], value * (0.25 if "lora_B" in key else 1.0)), key
    assert json.loads((folder / "provenance.json").read_text())["images_generated"] == 0


@pytest.mark.parametrize(
    "change, message",
    [
        ({"best_of": 4, "training": {}}, "best_of trains nothing"),
        ({"best_of": 4, "start_from": "grpo"}, "best_of is of the base model"),
        ({"adapter_scale": 0.5}, "adapter_scale needs start_from"),
        ({"adapter_scale": 1.5, "start_from": "grpo"}, "less than 1"),
        ({"best_of": 1}, "greater than or equal to 2"),
    ],
)
def test_a_row_without_training_says_what_it_is_made_of(change, message):
    value = {"label": "x", "algorithm": "grpo", "source": "x", "training": {"iterations": 0}, **change}
    with pytest.raises(ConfigError, match=message):
        parse(MethodFile, value, "config/methods/x.yaml")


def test_rows_with_training_have_no_key_of_those_without():
    run = resolve.resolve_run("tiny-sd3", "ocr", "sft_then_ddrl", 1, {}).content()
    assert "best_of" not in run and set(run["start"]) == {"run", "hash"}
