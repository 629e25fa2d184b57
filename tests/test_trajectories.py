"""Windows of training histories and what is read off them, on curves whose answers are known."""

import numpy as np
import pandas as pd
import pytest
from test_tables import check_tex

from reporting import trajectories, trajectory_tables
from reporting.layout import CourseLayout, Layout, load_course, load_layout
from reporting.tables import NoRows

LABELS = {"base": "base", "grpo": "GRPO", "gardo": "GARDO", "grpo_shuffled": "shuffled"}
COLUMNS = "run base task method seed step name value".split()
AUXILIARY, UNSEEN = "scene_preference", "scene_text_score"
ROLES = {("b", "ocr"): {"gold": "gold", AUXILIARY: "auxiliary", UNSEEN: "unseen", "diversity": "diversity"}}


def history(method: str, seed: int = 1, task: str = "ocr", every: int = 1, **metrics) -> pd.DataFrame:
    """A run that logs each metric's values, one for every ``every`` steps."""
    run = f"b__{task}__{method}__s{seed}"
    rows = [
        (run, "b", task, method, seed, every * (i + 1), f"reward/{metric}_mean", float(value))
        for metric, values in metrics.items()
        for i, value in enumerate(values)
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def layout() -> tuple[CourseLayout, Layout]:
    """config/trajectories.yaml and config/tables.yaml."""
    return load_course(), load_layout()


def draw(out, parts, windows=4, labels=LABELS, **options) -> dict[str, pd.DataFrame]:
    """The tables' .csv by name, rows by method and column (and what stands before the numbers)."""
    course, specs = layout()
    curves = trajectories.windowed(pd.concat(parts), windows)
    course = course.model_copy(update={"windows": windows})
    paths = trajectory_tables.render(curves, ROLES, course, specs, labels, out, **options)
    return {path.stem: pd.read_csv(path) for path in paths if path.suffix == ".csv"}


def test_windows_are_equal_parts_of_the_longest_training():
    parts = [
        history("gardo", proxy=range(1, 9)),
        history("gardo", every=2, gold=[1, 2, 3, 4]),
        history("grpo", proxy=[5, 7, 9]),  # shorter: on the same windows
        history("grpo", task="geneval", proxy=[1, 2, 3]),  # fewer steps than windows
        history("grpo").assign(name="train/kl_loss"),
    ]
    curves = trajectories.windowed(pd.concat(parts), 4)
    assert list(curves) == [*trajectories.KEYS, "gold", "proxy"]
    assert list(curves["run"].unique()) == ["b__ocr__gardo__s1", "b__ocr__grpo__s1", "b__geneval__grpo__s1"]
    gardo, grpo, short = (of_run for _, of_run in curves.groupby("run", sort=False))
    assert gardo["step"].tolist() == [1, 3, 5, 7] and trajectories.width(gardo) == 2
    assert gardo["proxy"].tolist() == [1.5, 3.5, 5.5, 7.5] and gardo["gold"].tolist() == [1, 2, 3, 4]
    assert grpo["step"].tolist() == [1, 3] and grpo["proxy"].tolist() == [6, 9]
    assert grpo["gold"].isna().all()
    assert short["proxy"].tolist() == [1, 2, 3] and trajectories.width(short) == 0.75
    rare = trajectories.windowed(
        pd.concat([history("grpo", proxy=range(8)), history("grpo", every=8, gold=[1])]), 4
    )
    assert rare["gold"].isna().tolist() == [True, True, True, False]
    with pytest.raises(ValueError, match="windows is 0"):
        trajectories.windowed(pd.concat(parts), 0)


def test_histories_without_rewards_have_no_windows():
    nothing = pd.DataFrame(columns=COLUMNS)
    for empty in (nothing, history("grpo", proxy=[1]).assign(name="train/kl_loss")):
        assert list(trajectories.windowed(empty, 10)) == trajectories.KEYS


def test_a_level_is_reached_between_windows_or_never():
    curve = np.array([1.0, 3.0, 5.0]), np.array([0.2, 0.6, 0.4])
    assert trajectories.first_reach(*curve, 0.5) == pytest.approx(2.5)
    assert trajectories.first_reach(*curve, 0.1) == 1  # at once
    assert trajectories.first_reach(*curve, 0.6) == 3
    assert trajectories.first_reach(*curve, 0.7) is None
    parts = [
        history("grpo", proxy=[0.2, 0.6, 0.4], gold=[1, 2, 3]),
        history("grpo", seed=2, proxy=[0.2, 0.3, 0.3], gold=[1, 2, 3]),
        history("grpo", seed=3, proxy=[0.5, 0.6, 0.7]),
    ]
    found = trajectories.at_level(trajectories.windowed(pd.concat(parts), 3), 0.5)
    assert list(found.index) == [1, 3]  # the second seed never gets there
    assert found.loc[1, ["step", "gold", "proxy"]].tolist() == pytest.approx([1.25, 1.75, 0.5])
    assert found.loc[3, "step"] == 0.5 and np.isnan(found.loc[3, "gold"])


def test_levels_lie_between_the_start_and_what_the_methods_reach():
    parts = [history("grpo", seed=s, proxy=[0.5, best]) for s, best in enumerate((0.9, 1.0, 0.1))]
    parts += [history("gardo", seed=s, proxy=[0.5, best]) for s, best in enumerate((0.7, 0.7, 0.9))]
    curves = trajectories.windowed(pd.concat(parts), 2)
    assert trajectories.levels(curves, 0.5, [0.5, 1.0], [0.5], 2) == [0.6, 0.7, 0.8]  # medians 0.7 and 0.9
    flat = trajectories.windowed(history("grpo", proxy=[0.5, 0.5]), 2)
    assert trajectories.levels(flat, 0.5, [0.5, 0.9], [0.5, 0.9], 2) == []
    # A method that never rises leaves the levels of those that do.
    fallen = curves.assign(proxy=curves["proxy"].where(curves["method"] == "grpo", 0.4))
    assert trajectories.levels(fallen, 0.5, [0.5], [0.5], 2) == [0.7]


def runs(*columns) -> pd.DataFrame:
    return pd.DataFrame(
        dict(enumerate(columns)), index=pd.Index(2.0 * np.arange(len(columns[0])), name="step")
    )


def test_the_turn_is_that_of_the_mean_and_held_out_it_is_not_chosen_by_noise():
    turn = trajectories.turn(runs([1, 5, 2, 1], [1, 2, 4, 0]))  # means 1, 3.5, 3, 0.5
    assert turn.step.mean == 2 and turn.step.low <= 2 <= turn.step.high == 4
    assert turn.height.tolist() == [5, 2] and turn.lost.tolist() == [4, 2]
    assert turn.held_out.tolist() == [2 - 1, 2 - 0]  # each at the other's maximum
    tied = trajectories.turn(runs([1, 3, 3, 1]))
    assert tuple(tied.step) == (2, 2, 2, 1) and tied.held_out.empty  # the first; one seed holds nothing out
    rising = trajectories.turn(runs([1, 2, 3], [1, 2, 3]))
    assert rising.step.mean == 4 and rising.lost.tolist() == [0, 0]


def test_of_pure_noise_nothing_is_lost_held_out():
    rng = np.random.default_rng(0)
    turns = [trajectories.turn(runs(*rng.normal(size=(4, 10)).tolist())) for _ in range(150)]
    assert np.mean([turn.lost.mean() for turn in turns]) > 0.5  # too high by construction
    assert abs(np.mean([turn.held_out.mean() for turn in turns])) < 0.15


def test_checkpoints_are_chosen_run_by_run():
    parts = [
        history("grpo", proxy=[1, 2, 3, 3], gold=[1, 4, 2, 0], **{AUXILIARY: [30, 20, 50, 10]}),
        history("grpo", seed=2, proxy=[4, 2, 3, 3], gold=[0, 1, 2, 3], **{AUXILIARY: [34, 34, 20, 10]}),
    ]
    curves = trajectories.with_auxiliaries(trajectories.windowed(pd.concat(parts), 4), [AUXILIARY, "absent"])
    score = curves.groupby("seed")[trajectories.AUXILIARIES].first()
    assert score.tolist() == pytest.approx([-1, 1])  # in standard deviations of the first windows: 2
    steps = {s: trajectories.selected(curves, s)["window"].tolist() for s in trajectories.SELECTIONS}
    assert steps == {
        "last": [3, 3],
        "auxiliary": [2, 0],
        "proxy": [2, 0],
        "oracle": [1, 3],
    }  # ties: the first
    without = trajectories.with_auxiliaries(curves.drop(columns="gold"), [])
    assert (
        trajectories.selected(without, "auxiliary").empty and trajectories.selected(without, "oracle").empty
    )


def grid() -> list[pd.DataFrame]:
    """KL-free GRPO that turns, GARDO that does not and is slow, and a control that loses gold all along."""
    parts = []
    for seed, shift in ((1, 0.0), (2, 0.01), (3, 0.02)):
        parts += [
            history("grpo", seed, proxy=[0.5, 0.7, 0.9, 0.9], gold=np.array([0.2, 0.3, 0.2, 0.0]) + shift),
            history("gardo", seed, proxy=[0.5, 0.5, 0.7, 0.7], gold=np.array([0.2, 0.2, 0.3, 0.4]) + shift),
            history("grpo_shuffled", seed, proxy=[0.5] * 4, gold=np.array([0.2, 0.15, 0.1, 0.05]) + shift),
            history("grpo", seed, diversity=[0.1, 0.1, 0.1, 0.1 if seed > 1 else 0.04]),
        ]
    return parts


def test_matched_compares_at_the_same_proxy(tmp_path):
    table = draw(tmp_path, grid())["matched"]
    assert sorted(table["at"].str.extract(r"([\d.]+)$")[0].astype(float).unique()) == [0.6, 0.68, 0.8, 0.88]
    at = {float(k.split()[-1]): v.set_index(["method", "column"]) for k, v in table.groupby("at")}
    assert at[0.6].loc[("grpo", "step"), "mean"] == pytest.approx(1.0)  # half way from 0.5 to 1.5
    assert at[0.6].loc[("grpo", "gold"), "mean"] == pytest.approx(0.26)
    assert at[0.6].loc[("gardo", "gold"), "mean"] == pytest.approx(0.26)
    assert at[0.6].loc[("gardo", "step"), "mean"] == pytest.approx(2.0)
    assert at[0.6].loc[("gardo", "control_gold"), "mean"] == pytest.approx(0.135)
    assert at[0.8].loc[("grpo", "gold"), "mean"] == pytest.approx(0.26)
    assert at[0.8].loc[("gardo", "gold"), "seeds"] == 0
    assert at[0.8].loc[("gardo", "gold"), "reached"] == "never, 0 of 3"
    assert at[0.6].loc[("grpo", "gold"), "reached"] == "3 of 3"
    assert at[0.6].loc[("start", "gold"), "mean"] == pytest.approx(0.21)  # the start
    assert at[0.6].loc[("start", "gold"), "reached"] == "starts at 0.50"
    text = (tmp_path / "matched.md").read_text()
    assert "**b, trained on OCR: where the proxy first reaches 0.60**" in text and "gold‡ ↑" in text
    assert "windows of 1 steps, 4 per training" in text and "Seeds: 3." in text
    assert "| shuffled | never, 0 of 3 | – |" in text


def test_some_seeds_that_reach_a_level_are_counted(tmp_path):
    parts = [*grid(), history("gardo", 4, proxy=[0.5, 0.9, 0.9, 0.9], gold=[0.2, 0.2, 0.2, 0.2])]
    table = draw(tmp_path, parts)["matched"].set_index(["at", "method", "column"])
    row = table.loc[("where the proxy first reaches 0.80", "gardo", "gold")]
    assert (row["reached"], row["seeds"], row["mean"]) == ("1 of 4", 1, pytest.approx(0.2))


def test_turn_stands_beside_the_control(tmp_path):
    table = draw(tmp_path, grid())["turn"].set_index(["method", "column"])["mean"]
    assert table["grpo"].drop(["control_lost"]).to_dict() == pytest.approx(
        dict(step=1.5, gold_start=0.21, gold_max=0.31, gold_end=0.01, lost=0.3, held_out=0.3)
        | dict(proxy_max=0.7, proxy_end=0.9)
    )
    assert table["grpo", "control_lost"] == pytest.approx(0.1)  # between the same steps
    assert table["gardo", "lost"] == 0 and table["gardo", "control_lost"] == 0
    assert table["grpo_shuffled", "lost"] == pytest.approx(0.15)
    short = history("grpo", 4, proxy=[0.5, 0.6])  # a seed without gold changes nothing
    again = draw(tmp_path, [*grid(), short])["turn"].set_index(["method", "column"])["mean"]
    assert again["grpo"].equals(table["grpo"])
    assert np.isnan(table["grpo_shuffled", "control_lost"])
    alone = draw(tmp_path / "alone", [p for p in grid() if "shuffled" not in p["run"].iloc[0]])["turn"]
    assert "control_lost" not in set(alone["column"])


def test_selection_says_what_each_checkpoint_gives(tmp_path):
    table = draw(tmp_path, grid())["selection"].set_index(["method", "checkpoint", "column"])["mean"]
    gold = {c: table["grpo", c, "gold"] for c in ("last", "best proxy", "oracle (best gold)")}
    assert gold == pytest.approx({"last": 0.01, "best proxy": 0.21, "oracle (best gold)": 0.31})
    assert table["start", "–", "proxy"] == 0.5
    assert "best auxiliaries" not in table.index.get_level_values("checkpoint")  # none was logged
    text = (tmp_path / "selection.md").read_text()
    assert "8.0 [4.0, 10.0]" in text  # one seed's diversity fell


def test_one_seed_photographs_and_old_histories(tmp_path):
    old = draw(tmp_path, [history("grpo", proxy=[0.5, 0.7, 0.9, 0.8])])  # nothing but the proxy
    assert set(old) == {"matched", "selection"}
    text = (tmp_path / "selection.md").read_text()
    assert "| GRPO | best proxy | 2 (n=1) | 0.90 (n=1) |" in text
    with pytest.raises(NoRows, match=r"'turn' has no training histories.*'\*'"):
        draw(tmp_path, [history("grpo", proxy=[0.5, 0.7])], requested=["turn"])
    none = pd.DataFrame(columns=COLUMNS)
    assert draw(tmp_path, [none]) == {}  # base rows alone
    one = draw(tmp_path, [history("grpo", proxy=[0.5, 0.7], gold=[0.2, 0.1])])["turn"].set_index("column")
    assert one.loc["lost", "mean"] == pytest.approx(0.1) and "held_out" not in one.index


def test_bases_follow_the_grid_and_every_file_is_sound(tmp_path):
    second = [p.assign(base="c", run=p["run"].str.replace("b__", "c__")) for p in grid()]
    tables = draw(tmp_path, [*grid(), *second], bases=["c", "b"], version="Commit abc (dirty).")
    assert set(tables) == {"matched", "turn", "selection"}
    for name, table in tables.items():
        assert list(table["base"].unique()) == ["c", "b"]
        tex = (tmp_path / f"{name}.tex").read_text()
        check_tex(tex)
        assert "Commit abc" in tex and (tmp_path / f"{name}.html").read_text().count("<table>") >= 2


def test_roles_are_those_of_most_scores():
    rows = [("b", "ocr", "look", r) for r in ("auxiliary", "proxy", "auxiliary")]
    rows += [("b", "ocr", "gold", "gold"), ("b", "ocr", "wall", "cost")]
    scores = pd.DataFrame(rows, columns=["base", "task", "metric", "role"])
    assert trajectory_tables.roles_of(scores) == {("b", "ocr"): {"look": "auxiliary", "gold": "gold"}}


def test_a_score_of_the_proxys_instrument_says_so(tmp_path):
    course, specs = layout()
    curves = trajectories.windowed(history("grpo", proxy=[0.5, 0.7], exploit_rate=[0.1, 0.9]), 2)
    roles = {("b", "ocr"): {"exploit_rate": "proxy"}}
    trajectory_tables.render(curves, roles, course, specs, LABELS, tmp_path)
    text = (tmp_path / "selection.md").read_text()
    assert "| proxy ↑ | exploit rate (proxy) ↓ |" in text and specs.roles["proxy"].legend in text


def test_the_configuration_names_what_there_is():
    course, specs = layout()
    assert {table.kind for table in course.tables.values()} == set(trajectory_tables.KINDS)
    assert not set(course.tables) & set(specs.tables)
    assert list(course.tables["selection"].selections) == list(trajectories.SELECTIONS)
    assert course.windows >= 10  # points of a curve
