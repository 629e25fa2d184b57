"""The benchmark measures what it says: both loops compute the same, growth is fitted right, tables render."""

import json
import subprocess
import sys

import pytest
import torch

from benchmarks import rates, scaling, true_size
from benchmarks.loops import gradient_difference, method_names
from benchmarks.measuring import exponent, flops, ratio
from benchmarks.report import place, to_markdown, write
from training.provenance import peak_memory_mb

SHORT = {"prompts_per_iteration": 2, "group_size": 4}


@pytest.mark.parametrize("method", ["grpo", "grpo_kl_large", "gardo"])
def test_the_straight_loop_and_the_suite_compute_the_same_gradients(method):
    difference, terms = gradient_difference(method, **SHORT)
    assert difference < 1e-4
    assert method == "grpo" or terms["kl_loss"] > 0  # the reference enters


def test_every_trained_row_is_measured():
    assert {"grpo", "gardo", "ddrl_synthetic", "diffusion_nft", "sft"} <= set(method_names())
    assert "base" not in method_names()


def test_growth_and_ratios():
    assert exponent([1, 2, 4], [3, 12, 48]) == pytest.approx(2)
    assert ratio([2, 4, 9], [1, 2, 3]) == 2  # of pairs, so one slow moment does not count


@pytest.mark.parametrize("key", ["image_size", "rollout_steps"])
def test_a_ladder_can_be_climbed_to_its_end(key, tmp_path):
    settings = {key: scaling.LADDERS[key][-1], "prompts_per_iteration": 1, "group_size": 2, "repetitions": 1}
    scaling.measure("cpu", settings, tmp_path / "point.json")
    measured = json.loads((tmp_path / "point.json").read_text())
    assert measured["seconds"] > 0 and measured["peak_memory_mb"] > 100


def test_a_failed_point_says_why():
    with pytest.raises(RuntimeError, match="key 'image_size' is 31, not a multiple of 8"):
        scaling.point({"image_size": 31}, "cpu")


def test_peak_memory_is_not_that_of_the_process_that_started_this_one():
    held = torch.ones(500_000_000)  # 2 GB
    program = "from training.provenance import peak_memory_mb; print(peak_memory_mb())"
    printed = subprocess.check_output([sys.executable, "-c", program])
    assert 100 < float(printed) < 1500 < held.nbytes / 2**20 < peak_memory_mb()


def test_flops_are_counted():
    a, b = torch.ones(8, 16), torch.ones(16, 4)
    assert flops(lambda: a @ b) == 2 * 8 * 16 * 4


def test_a_part_that_was_not_measured_is_left_out():
    result = {
        "hardware": {"processor": "some"},
        "git": {"commit": "0123456789"},
        "overhead": {
            "start_up_seconds": 3.21,
            "start_up_in_workflow_seconds": 1.43,
            "snakemake_seconds_per_job": 0.123,
        },
    }
    text = to_markdown(result)
    assert "| start-up of a job, one image trained | 3.2 |" in text and "0.12" in text
    assert "Rates" not in text and "0123456" in text


SMALL = {"num_layers": 1, "num_attention_heads": 2, "attention_head_dim": 8, "caption_projection_dim": 16}
SMALL_RUN = {"prompts_per_iteration": 1, "group_size": 2, "gradient_steps": 1, "micro_batch": 1}


def test_sd35_medium_has_its_true_size():
    """Its published weight file has 4.94 GB in bf16, position table included."""
    from diffusers import SD3Transformer2DModel

    with torch.device("meta"):
        network = SD3Transformer2DModel(**true_size.TRANSFORMER)
    assert sum(t.numel() for t in network.state_dict().values()) * 2 == pytest.approx(4.94e9, rel=0.001)


def test_the_true_size_benchmark_trains_and_reports(tmp_path, monkeypatch):
    """All of it but the size: a checkpoint of fewer blocks goes through the very code."""
    narrow = {
        **SMALL,
        "joint_attention_dim": 96,
        "pooled_projection_dim": 64,
        "dual_attention_layers": (0,),
    }
    monkeypatch.setattr(true_size, "CLIP_WIDTHS", (32, 32))
    monkeypatch.setattr(true_size, "CLIP_HEAD", 8)
    monkeypatch.setattr(true_size, "T5_WIDTH", 96)
    autoencoder = {**true_size.AUTOENCODER, "block_out_channels": (32,) * 4}
    monkeypatch.setattr(true_size, "AUTOENCODER", autoencoder)
    true_size.save_checkpoint(tmp_path / "checkpoint", ["a red circle"], narrow)
    base = {"image_size": 32, "rollout_steps": 3}
    training = {**SMALL_RUN, "sde_steps": 2, "trained_steps": 2}
    trainer = true_size.open_trainer(tmp_path / "checkpoint", "grpo_kl_large", "cpu", base, training)
    before = [p.detach().clone() for p in trainer.adapters.parameters.values()]
    measured = rates.of(trainer, repeats=1)
    assert any((p != b).any() for p, b in zip(trainer.adapters.parameters.values(), before, strict=True))
    assert set(measured["rows"]) == {"rollout", "decoding", "update", "reward (edge_density)"}
    assert measured["rows"]["rollout"]["precision"] == "bfloat16" and measured["peak_memory_mb"] > 100

    result = {
        "hardware": {"processor": "some (R) thing", "accelerator": "none"},
        "git": {"commit": "0123456789"},
        "setting": {"parameters": 7},
        "rates": measured,
    }
    path = place(tmp_path, result["hardware"], "cpu", "-sd3.5-medium")
    write(path, result)
    assert path.name == "some-R-thing-sd3.5-medium".lower()
    assert json.loads((tmp_path / f"{path.name}.json").read_text()) == result
    assert "parameters: 7" in (tmp_path / f"{path.name}.md").read_text()
