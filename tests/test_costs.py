"""The cost of each run and the mark of runs whose code nobody can check out."""

import pandas as pd
import pytest

from evaluation.scores import COSTS, Scores
from reporting import costs, origin
from reporting.layout import load_layout


def provenance(seconds: float, dirty: bool | None = False, memory: float = 900.0) -> dict:
    return {
        "git": {"commit": None if dirty is None else "0123456789abcdef", "dirty": dirty},
        "wall_seconds": seconds,
        "cpu_seconds": 2 * seconds,
        "device_seconds": 4 * seconds,
        "peak_memory_mb": memory,
        "images_generated": 72,
        "reward_calls": 144,
        "gradient_steps": 5,
    }


RUNS = {"b__t__grpo__s1": provenance(1800), "b__t__gardo__s1": provenance(5400, dirty=True, memory=1000.0)}


def scores(runs) -> Scores:
    """What scoring writes of a run's cost."""
    rows = [
        (run, "training", metric, "cost", float(provenance[name]))
        for run, provenance in runs.items()
        for metric, name in COSTS.items()
    ]
    return Scores(pd.DataFrame(rows, columns=["run", "suite", "metric", "role", "value"]))


def test_every_run_has_its_cost_and_its_origin(tmp_path):
    layout = load_layout()
    costs.render(costs.per_run(scores(RUNS), RUNS, layout), layout, origin.sentence(RUNS), tmp_path)
    table = pd.read_csv(tmp_path / "cost_runs.csv").set_index("run")
    assert list(table["wall_hours"]) == [0.5, 1.5]
    assert table.loc["b__t__gardo__s1", ["cpu_hours", "device_hours"]].tolist() == [3.0, 6.0]
    assert list(table["dirty"]) == [False, True] and set(table["commit"]) == {"0123456789abcdef"}
    text = (tmp_path / "cost_runs.md").read_text()
    assert "| b__t__gardo__s1 § | 1.500 | 3.000 | 6.000 | 1000 | 72 | 144 | 5 |" in text
    assert "| 2 runs | 2.000 | 4.000 | 8.000 | 1000 | 144 | 288 | 10 |" in text
    assert "Commit 012345678. §: 1 of 2 runs were made from code that is not committed." in text
    assert (tmp_path / "cost_runs.tex").read_text().isascii()


def test_a_method_with_one_dirty_run_is_marked():
    methods = {"b__t__grpo__s1": "grpo", "b__t__gardo__s1": "gardo"}
    labels = {"grpo": "GRPO", "gardo": "GARDO", "sft": "SFT"}
    assert origin.marked(labels, methods, RUNS) == {"grpo": "GRPO", "gardo": "GARDO §", "sft": "SFT"}


@pytest.mark.parametrize("dirty, marked", [(False, False), (True, True), (None, True)])
def test_only_a_clean_commit_is_unmarked(dirty, marked):
    runs = {"run": provenance(1, dirty)}
    assert origin.is_dirty(runs["run"]) is marked and ("§" in origin.sentence(runs)) is marked
