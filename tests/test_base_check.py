"""The untrained base model beside what it should score: the verdicts follow the numbers."""

from pathlib import Path

import pandas as pd
import pytest

import rewards
from core.files import to_yaml
from core.settings import read_yaml
from evaluation.configuration import expected_base, load_evaluation
from evaluation.scores import COLUMNS
from reporting import base_check
from reporting.base_check import AGREES, HIGH, LOW, UNKNOWN, CheckSettings, Recorded, check, markdown, verdict
from reporting.layout import load_published

CONFIG = Path(__file__).parents[1] / "config"
SPEC = CheckSettings(**read_yaml(CONFIG / "base_check.yaml"))
PUBLISHED = load_published()


def scores(base: str, values: dict[tuple[str, str], list[float]], task="ocr") -> pd.DataFrame:
    rows = [
        (f"{base}__{task}__base__s{seed}", base, task, "base", seed)
        + (0, suite, suite == task, metric, "unseen", value, 10)
        for (suite, metric), by_seed in values.items()
        for seed, value in enumerate(by_seed)
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


@pytest.mark.parametrize(
    "low, high, expected, tolerance, judged",
    [
        (0.5, 0.6, 0.55, 0.0, AGREES),
        (0.5, 0.6, 0.63, 0.03, AGREES),
        (0.5, 0.6, 0.64, 0.03, LOW),
        (0.5, 0.6, 0.46, 0.03, HIGH),
        (0.5, 0.6, None, 0.03, UNKNOWN),
    ],
)
def test_verdict(low, high, expected, tolerance, judged):
    assert verdict(low, high, expected, tolerance) == judged


def test_table_1_is_set_beside_the_real_model():
    recorded = Recorded(suites=["geneval", "drawbench"], scores=[])
    table = scores(
        "sd3.5-medium",
        {
            ("geneval", "geneval_mask2former"): [0.62, 0.63, 0.64],
            ("drawbench", "aesthetic_v2"): [4.5, 4.6, 4.7],
            ("drawbench", "diversity"): [0.21, 0.22, 0.23],
            ("drawbench", "deqa"): [1.0, 1.0, 1.0],
        },
    )
    found = check(table, recorded, SPEC, PUBLISHED).set_index("metric")
    assert found["expected"]["geneval_mask2former"] == 0.63 and found["expected"]["diversity"] == 21.84
    assert found["mean"]["diversity"] == pytest.approx(22)
    verdicts = {"geneval_mask2former": AGREES, "aesthetic_v2": LOW, "diversity": AGREES, "deqa": UNKNOWN}
    assert found["verdict"].to_dict() == verdicts and set(found["source"]) == {"GARDO Table 1", ""}
    assert list(found["n_images"]) == [30] * 4
    text = markdown(found.reset_index())
    assert "2 of 3 compared metrics agree" in text and "cannot be compared" in text
    assert "drawbench, aesthetic_v2: 4.6, too low; expected 5.07" in text


def test_the_embedded_world_is_judged_by_what_its_rewards_expect(monkeypatch):
    expected = rewards.get_class("geneval").expected_base["tiny-sd3"]
    suites = {
        name: {"prompts": f"resources/prompts/{name}_test.jsonl", "metrics": metrics}
        for name, metrics in (("geneval", ["geneval"]), ("counting", ["geneval", "gold"]))
    }
    config = load_evaluation({"suites": suites})
    recorded = Recorded(suites=list(suites), scores=expected_base(config, ["tiny-sd3"]))
    values = {("geneval", "geneval"): [expected], ("counting", "geneval"): [0.9], ("counting", "gold"): [0.5]}
    both = pd.concat([scores("tiny-sd3", values, task) for task in ("geneval", "counting")])
    found = check(both, recorded, SPEC, PUBLISHED)
    assert list(zip(found["suite"], found["verdict"], strict=True)) == [
        ("geneval", AGREES),
        ("counting", UNKNOWN),  # an expected value is for the first suite that holds the metric
        ("counting", UNKNOWN),
    ]
    assert list(found["n_images"]) == [10] * 3  # the same suite in two tasks counts once
    assert "cannot be compared" not in markdown(found)


def test_a_grid_without_a_base_row_says_so():
    with pytest.raises(ValueError, match="add the method 'base'"):
        check(pd.DataFrame(), Recorded(suites=[], scores=[]), SPEC, PUBLISHED)


def test_rewards_and_table_1_expect_the_same():
    for (_, metric), (value, _, _) in base_check.published_rows("sd3.5-medium", SPEC, PUBLISHED).items():
        if metric in rewards.names():
            assert rewards.get_class(metric).expected_base.get("sd3.5-medium", value) == value


def test_files_are_written(tmp_path, monkeypatch):
    expected = rewards.get_class("geneval").expected_base["tiny-sd3"]
    found = [expected - 0.01, expected + 0.01]
    scores("tiny-sd3", {("geneval", "geneval"): found}).to_parquet(tmp_path / "a.parquet")
    known = {"base": "tiny-sd3", "suite": "geneval", "metric": "geneval", "value": expected, "source": "x"}
    (tmp_path / "scoring.yaml").write_text(to_yaml({"suites": ["geneval"], "scores": [known]}))
    arguments = ["base_check", str(tmp_path / "a.parquet"), "--settings", str(tmp_path / "scoring.yaml")]
    arguments += [
        "--expected",
        str(CONFIG / "base_check.yaml"),
        "--published",
        str(CONFIG / "published.yaml"),
    ]
    monkeypatch.setattr("sys.argv", [*arguments, "--out", str(tmp_path / "check.md")])
    assert base_check.main() == 0
    assert pd.read_csv(tmp_path / "check.csv")["verdict"].tolist() == [AGREES]
    line = f"| tiny-sd3 | geneval | geneval | {expected:g} [{found[0]:g}, {found[1]:g}] | 20 |"
    assert line in (tmp_path / "check.md").read_text()
