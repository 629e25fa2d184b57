"""The benchmark measures what it says: both loops compute the same, growth is fitted right, tables render."""

import pytest

from benchmarks.loops import gradient_difference, method_names
from benchmarks.measuring import exponent, flops, ratio
from benchmarks.report import to_markdown

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


def test_flops_are_counted():
    import torch

    a, b = torch.ones(8, 16), torch.ones(16, 4)
    assert flops(lambda: a @ b) == 2 * 8 * 16 * 4


def test_a_part_that_was_not_measured_is_left_out():
    result = {
        "hardware": {"processor": "some"},
        "git": {"commit": "0123456789"},
        "overhead": {"start_up_seconds": 3.21, "snakemake_seconds_per_job": 0.123},
    }
    text = to_markdown(result)
    assert "| start-up of a job, one image trained | 3.2 |" in text and "0.12" in text
    assert "Rates" not in text and "0123456" in text
