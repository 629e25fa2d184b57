"""Verdicts are computed: moved scores move them."""

from pathlib import Path

import pandas as pd
import pytest

from evaluation.claims import ClaimTest, combine, evaluate, judge, load, to_markdown
from training.configuration import ConfigError

CLAIMS = Path("config/claims.yaml")
PROXIES, SUITES = {"ocr": "ocr"}, {"ocr": "ocr"}


def make_scores(**methods: dict[str, float]) -> pd.DataFrame:
    """Three seeds per method around the given values."""
    rows = []
    for method, values in methods.items():
        for seed in (1, 2, 3):
            for metric, value in values.items():
                key = {"run": f"{method}{seed}", "base": "b", "task": "ocr", "method": method, "seed": seed}
                cell = {"step": 9, "suite": "ocr", "metric": metric, "role": "unseen"}
                rows.append({**key, **cell, "value": value + 0.001 * seed, "n_images": 8})
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    "low, high, direction, margin, verdict",
    [
        (0.01, 0.2, "higher", 0.0, "holds"),
        (-0.2, -0.01, "higher", 0.0, "contradicted"),
        (-0.1, 0.1, "higher", 0.0, "undecided"),
        (-0.02, 0.1, "higher", -0.03, "holds"),
        (-0.2, -0.01, "lower", 0.0, "holds"),
        (0.01, 0.2, "lower", 0.0, "contradicted"),
        (-0.05, -0.01, "lower", -0.1, "contradicted"),
    ],
)
def test_judge(low, high, direction, margin, verdict):
    assert judge(low, high, direction, margin) == verdict


def test_a_claim_is_as_good_as_its_worst_test():
    assert combine(["holds", "holds"]) == "holds"
    assert combine(["holds", "undecided"]) == "undecided"
    assert combine(["holds", "undecided", "contradicted"]) == "contradicted"


def test_moved_scores_flip_the_verdict_of_definition_1():
    claims = {"Definition 1": load(CLAIMS)["Definition 1"]}
    base = {"ocr": 0.6, "gold": 0.3}
    for gold, verdict in ((0.2, "holds"), (0.4, "contradicted"), (0.3, "contradicted")):
        scores = make_scores(base=base, grpo={"ocr": 0.9, "gold": gold})
        if gold == 0.3:
            scores.loc[scores.metric == "ocr", "value"] = 0.6  # the proxy did not move
        (entry,) = evaluate(scores, claims, PROXIES, SUITES)
        assert entry["verdict"] == verdict
        assert verdict in to_markdown([entry], claims)


def test_a_claim_without_its_rows_is_not_judged_and_one_seed_decides_nothing():
    claims = load(CLAIMS)
    scores = make_scores(base={"ocr": 0.6, "gold": 0.3}, grpo={"ocr": 0.9, "gold": 0.2})
    judged = {e["claim"] for e in evaluate(scores, claims, PROXIES, SUITES)}
    assert judged == {"Definition 1"}
    assert "G5" in to_markdown([], claims)
    (entry,) = evaluate(scores[scores.seed == 1], claims, PROXIES, SUITES)
    assert entry["verdict"] == "undecided"


def test_patterns_compare_with_every_match():
    test = ClaimTest(metric="ocr", method="gardo", against="grpo*", direction="higher")
    scores = make_scores(gardo={"ocr": 0.9}, grpo={"ocr": 0.8}, grpo_no_std={"ocr": 0.95})
    from evaluation.claims import evaluate_test

    found = {r["against"]: r["verdict"] for r in evaluate_test(scores, test, "ocr", 0.95)}
    assert found == {"grpo": "holds", "grpo_no_std": "contradicted"}


def test_a_verdict_cannot_be_written_by_hand(tmp_path):
    path = tmp_path / "claims.yaml"
    path.write_text("G1: {text: a, source: b, verdict: holds, tests: []}\n")
    with pytest.raises(ConfigError, match="verdict"):
        load(path)
