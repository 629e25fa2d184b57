"""Intervals over seeds: known values, coverage, edge cases, determinism.

statistics_reference.json was computed with rliable, which is no dependency; its field ``source`` says how.
"""

import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from evaluation.scores import Scores, by_image, check_scores, last_step, load
from reporting import statistics as st

REFERENCE = json.loads((Path(__file__).parent / "statistics_reference.json").read_text())


def frame(**columns):
    fixed = dict(base="b", task="t", method="m", step=10, suite="s", own=True)
    fixed |= dict(metric="x", role="proxy", n_images=4)
    data = pd.DataFrame({**fixed, **columns})
    data["run"] = (
        data["base"] + "__" + data["task"] + "__" + data["method"] + "__s" + data["seed"].astype(str)
    )
    return data


def test_interval_agrees_with_scipy_and_orders():
    values = [0.31, 0.42, 0.36, 0.5, 0.44]
    ours = st.bootstrap_interval(values)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=10_000, rng=1)
    assert ours.mean == pytest.approx(np.mean(values))
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=4e-3)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=4e-3)
    assert min(values) <= ours.low < ours.mean < ours.high <= max(values) and ours.seeds == 5


def test_interval_covers_the_mean_of_many_seeds():
    rng = np.random.default_rng(3)
    intervals = [st.bootstrap_interval(rng.normal(2.0, 1.0, 30), reps=500) for _ in range(200)]
    covered = np.mean([i.low <= 2.0 <= i.high for i in intervals])
    assert 0.88 <= covered <= 0.99


def test_a_higher_level_gives_a_wider_interval():
    values = [0.1, 0.4, 0.2, 0.9]
    narrow, wide = st.bootstrap_interval(values, level=0.5), st.bootstrap_interval(values, level=0.99)
    assert wide.low < narrow.low and narrow.high < wide.high


def test_interval_is_deterministic_and_blind_to_order():
    values = [0.3, 0.1, 0.2]
    assert st.bootstrap_interval(values) == st.bootstrap_interval(values[::-1])
    assert st.bootstrap_interval(values, reps=50, seed=1) != st.bootstrap_interval(values, reps=50, seed=2)


def test_one_seed_is_marked_and_ties_are_not():
    assert st.bootstrap_interval([0.7]) == (0.7, 0.7, 0.7, 1)
    assert st.bootstrap_interval([0.1, 0.1, 0.1]) == (0.1, 0.1, 0.1, 3)


@pytest.mark.parametrize("values", [[], [0.1, float("nan")], [[[0.1, 0.2]]]])
def test_bad_values_are_refused(values):
    with pytest.raises(ValueError, match="seed"):
        st.bootstrap_interval(values)


def test_interquartile_mean_drops_a_quarter_on_each_side():
    assert st.interquartile_mean([-100.0, 1.0, 3.0, 100.0]) == 2.0


def test_stratified_bootstrap_keeps_tasks_apart():
    # No spread inside a task: a resample that mixed tasks would vary, a stratified one cannot.
    result = st.stratified_bootstrap({"a": [0.0, 0.0], "b": [1.0, 1.0, 1.0]}, statistic=np.mean)
    assert (result.mean, result.low, result.high) == pytest.approx((0.6, 0.6, 0.6)) and result.seeds == 2
    spread = st.stratified_bootstrap({"a": [0.0, 0.2], "b": [1.0, 1.4]})
    assert spread.low < spread.mean < spread.high
    assert spread == st.stratified_bootstrap({"b": [1.4, 1.0], "a": [0.2, 0.0]})
    with pytest.raises(ValueError, match="stratum"):
        st.stratified_bootstrap({})


def test_probability_of_improvement_is_mann_whitney():
    x, y = [0.3, 0.5, 0.5, 0.9], [0.5, 0.1, 0.4]
    expected = stats.mannwhitneyu(x, y).statistic / 12
    assert st.improvement_interval({"a": x}, {"a": y}).mean == pytest.approx(expected)
    assert st.improvement_interval({"a": [1.0], "b": [1.0]}, {"a": [0.0], "b": [1.0]}).mean == 0.75
    with pytest.raises(ValueError, match="tasks differ"):
        st.improvement_interval({"a": x}, {"b": y})


def by_task(rows) -> dict[str, list[float]]:
    return {f"task{i}": list(column) for i, column in enumerate(zip(*rows, strict=True))}


@pytest.mark.parametrize("side", ["x", "y"])
def test_interquartile_mean_agrees_with_rliable(side):
    ours = st.stratified_bootstrap(by_task(REFERENCE[side]))
    mean, low, high = REFERENCE["iqm"][side]
    assert ours.mean == pytest.approx(mean)
    assert (ours.low, ours.high) == pytest.approx((low, high), abs=4e-3)


def test_probability_of_improvement_agrees_with_rliable():
    ours = st.improvement_interval(by_task(REFERENCE["x"]), by_task(REFERENCE["y"]))
    mean, low, high = REFERENCE["improvement"]
    assert ours.mean == pytest.approx(mean)
    assert (ours.low, ours.high) == pytest.approx((low, high), abs=0.02)
    assert ours.seeds == 4


def test_seeds_and_prompts_are_resampled_as_by_enumeration():
    """Every resample of three seeds with two prompts each: (3 seeds x 2^2 draws)^3, all alike."""
    values = np.array([[0.1, 0.5], [0.2, 0.9], [0.4, 0.45]])
    one_slot = [values[s, list(p)].mean() for s in range(3) for p in itertools.product(range(2), repeat=2)]
    exact = [np.mean(slots) for slots in itertools.product(one_slot, repeat=3)]
    for level in (0.5, 0.8, 0.95):
        ours = st.bootstrap_interval(values, level)
        low, high = np.quantile(exact, [(1 - level) / 2, (1 + level) / 2])
        assert ours.mean == pytest.approx(values.mean()) and ours.seeds == 3
        assert (ours.low, ours.high) == pytest.approx((low, high), abs=0.017)  # one atom
    over_seeds = st.bootstrap_interval(values.mean(axis=1))
    assert ours.low < over_seeds.low and over_seeds.high < ours.high
    assert st.bootstrap_interval(values[::-1]) == st.bootstrap_interval(values)
    one = st.bootstrap_interval(values[:1])
    assert one.low < one.mean < one.high and one.seeds == 1


def test_pairs_share_a_seed():
    ours, theirs = {1: 0.5, 2: 0.75, 4: 1.0}, {2: 0.5, 1: 0.25, 3: 9.0}
    assert st.paired_differences(ours, theirs).tolist() == [0.25, 0.25]
    rows = st.paired_differences({1: [1.0, 2.0]}, {1: [0.5, 0.0]})
    assert rows.tolist() == [[0.5, 2.0]]
    assert st.paired_differences({1: 0.5}, {2: 0.5}).size == 0


def test_values_by_prompt_are_used_where_every_run_has_them():
    scores = frame(seed=[1, 2], value=[0.25, 0.5])
    images = pd.DataFrame(
        [
            (run, 10, "s", "x", prompt, image, value)
            for run, prompt, image, value in (
                ("b__t__m__s1", 1, 0, 0.5),
                ("b__t__m__s1", 0, 0, 0.0),
                ("b__t__m__s1", 0, 1, 0.0),
                ("b__t__m__s1", 1, 1, 0.5),
                ("b__t__m__s2", 0, 0, 1.0),
                ("b__t__m__s2", 1, 0, 0.0),
            )
        ],
        columns=["run", "step", "suite", "metric", "prompt", "image", "value"],
    )
    found = Scores(scores, by_image(images.sample(frac=1, random_state=0))).values("x")
    assert {k: v.tolist() for k, v in found.items()} == {1: [0.0, 0.5], 2: [1.0, 0.0]}
    short = by_image(images[images["run"] == "b__t__m__s1"])
    assert {k: float(v) for k, v in Scores(scores, short).values("x").items()} == {1: 0.25, 2: 0.5}
    assert by_image(images[:0]) == {}
    with pytest.raises(ValueError, match="differ in their number of images"):
        by_image(images.iloc[1:])


def test_values_come_in_the_units_asked_for():
    """By another metric of the same run, a run is left out that lacks it or has zero of it."""
    rows = pd.concat(
        [frame(seed=[1, 2, 3], value=[6.0, 8.0, 9.0]), frame(seed=[1, 2], value=[3.0, 0.0], metric="n")]
    )
    scores = Scores(rows)
    plain = {seed: float(v) for seed, v in scores.values("x", scale=10, over=4).items()}
    assert plain == {1: 15.0, 2: 20.0, 3: 22.5}
    assert {s: float(v) for s, v in scores.values("x", scale=10, per="n").items()} == {1: 20.0}
    images = pd.DataFrame(
        [("b__t__m__s1", 10, "s", "x", prompt, 0, value) for prompt, value in enumerate((3.0, 9.0))],
        columns=["run", "step", "suite", "metric", "prompt", "image", "value"],
    )
    of_one = Scores(rows[rows["seed"] == 1], by_image(images)).values("x", scale=10, per="n")
    assert of_one[1].tolist() == [10.0, 30.0]


def test_the_own_suite_is_a_column_and_is_filled_in_where_it_was_never_written(tmp_path):
    table = frame(seed=[1, 2], value=[0.5, 0.6], suite=["s", "other"], own=[True, False])
    table.to_parquet(tmp_path / "new.parquet")
    table.drop(columns="own").to_parquet(tmp_path / "old.parquet")
    table.assign(own=[None, False]).to_parquet(tmp_path / "mixed.parquet")
    for name in ("new", "old", "mixed"):
        scores = load(tmp_path / f"{name}.parquet", own_suites={"t": "s"})
        assert scores.in_suite("own").table["seed"].tolist() == [1], name
        assert scores.in_suite("other").table["seed"].tolist() == [2], name


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (dict(seed=[0, 0], value=[0.1, 0.2]), "more than once; first: run b__t__m__s0"),
        (dict(seed=[0, 1], value=[0.1, np.nan]), "not finite; first: run b__t__m__s1"),
        (dict(seed=[0], value=[0.1], role="reward"), "unknown roles"),
    ],
)
def test_faulty_scores_are_refused(columns, message):
    with pytest.raises(ValueError, match=message):
        check_scores(frame(**columns))
    with pytest.raises(ValueError, match="lack the columns"):
        check_scores(frame(**columns).drop(columns="suite"))


def test_last_step_is_per_run_and_keeps_cost_rows():
    data = frame(
        seed=[0, 0, 0, 1], step=[10, 20, 25, 10], metric=["x", "x", "wall", "x"], value=[1.0, 2.0, 9.0, 3.0]
    )
    data.loc[2, "role"] = "cost"
    assert last_step(data)["value"].tolist() == [2.0, 9.0, 3.0]
