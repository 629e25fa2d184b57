"""The table of tried settings: what it says of a candidate, and which one it chooses."""

import pytest
from test_instrument import CONFIG, CURVES, OWN, WORLD, blocks_of, changed

from reporting import tuning
from runs import resolve


def candidate(world=WORLD, iterations=40, task="ocr"):
    (block,) = blocks_of(world, CURVES)
    run = resolve.resolve_run("tiny-sd3", task, "grpo", 1, {"training": {"iterations": iterations}})
    return {**tuning.candidate(block, run, 12.0, CONFIG), "task": f"{task}_{iterations}"}


def test_a_candidate_shows_settings_cost_and_verdicts():
    row = candidate()
    assert (row["iterations"], row["images"], row["seconds"], row["seeds"]) == (40, 40 * 72, 12.0, 3)
    assert row["proxy_first"] < row["proxy_last"] == pytest.approx(row["proxy_best"], abs=0.02)
    assert row["holds"] and row["drift_gold"] == pytest.approx(-0.01, abs=2e-3)
    drifting = candidate(changed("grpo_shuffled", gold=0.2))
    assert not drifting["holds"] and drifting["verdicts"]["negative control"] == "fails"
    assert drifting["drift_gold"] == pytest.approx(-0.1, abs=2e-3)


def test_the_cheapest_that_holds_is_chosen_for_each_task():
    drifts = changed("grpo_shuffled", gold=0.2)
    rows = [candidate(iterations=60), candidate(drifts, iterations=20), candidate(iterations=40)]
    assert tuning.chosen(rows) == {("b", "ocr_40", 40)}
    assert tuning.chosen([rows[1]]) == set()
    other = candidate(iterations=80, task="counting")
    assert tuning.chosen([*rows, other]) == {("b", "ocr_40", 40), ("b", "counting_80", 80)}
    (title, lines), *_ = tuning.to_tables(rows, CONFIG)
    assert title == "b, proxy ocr" and [line[-1].text for line in lines[1:]].count("yes") == 1
    assert OWN not in title


def test_a_candidate_is_read_as_if_it_had_ended_at_a_snapshot():
    """Half way the proxy is still rising, so that the shorter run does not hold."""
    (block,) = blocks_of(WORLD, CURVES)
    run = resolve.resolve_run("tiny-sd3", "ocr", "grpo", 1, {"training": {"iterations": 40}})
    whole, half = (tuning.candidate(block, run, 12.0, CONFIG, iterations) for iterations in (40, 10))
    assert (half["iterations"], half["images"], half["seconds"]) == (10, 10 * 72, 3.0)
    assert whole["holds"] and not half["holds"]
    assert half["proxy_last"] < whole["proxy_last"] and half["proxy_first"] <= whole["proxy_first"]
