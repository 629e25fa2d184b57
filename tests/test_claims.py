"""Verdicts are computed: moved scores move them, and nothing else does."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from core.settings import ConfigError, read_yaml
from evaluation.scores import Images, Scores
from reporting.claim_tests import MIXTURE, Claims, ClaimTest, load
from reporting.claims import NO_INSTRUMENT, combine, evaluate, judge, write
from reporting.evidence import Evidence, evidence_of

CLAIMS = Path("config/claims.yaml")
SEEDS = (1, 2, 3)


def single(values) -> Images:
    return Images(np.arange(len(values)), np.asarray(values, float))


HISTORY = ["base", "task", "method", "seed", "step", "name", "value"]


def make_scores(base_model="b", task="ocr", **methods: dict[str, float]) -> pd.DataFrame:
    """Three seeds per method around the given values."""
    rows = []
    for method, values in methods.items():
        for seed in SEEDS:
            for metric, value in values.items():
                suite = "model" if metric == "diffusion_loss" else task
                key = {"run": f"{base_model}__{task}__{method}__s{seed}", "base": base_model, "task": task}
                cell = {"method": method, "seed": seed, "step": 9, "suite": suite, "metric": metric}
                cell["own"] = suite == task
                role = "cost" if suite == "model" else "unseen"
                rows.append({**key, **cell, "role": role, "value": value + 0.001 * seed, "n_images": 8})
    return pd.DataFrame(rows)


def make_history(name="reward/proxy_mean", base="b", **methods) -> pd.DataFrame:
    """``methods``: name -> values over the steps, the same for every seed up to a little."""
    rows = [
        (base, "ocr", method, seed, step, name, value * (1 + 0.001 * seed))
        for method, values in methods.items()
        for seed in SEEDS
        for step, value in enumerate(values, 1)
    ]
    return pd.DataFrame(rows, columns=HISTORY)


def judged(
    name: str, scores: pd.DataFrame, history=None, images=None, mixture=None, instrument=NO_INSTRUMENT
) -> list[dict]:
    """Entries of one claim of the real file."""
    stated = load(CLAIMS)
    stated = stated.model_copy(update={"claims": {name: stated.claims[name]}})
    history = pd.DataFrame(columns=HISTORY) if history is None else history
    proxies = {"ocr": "ocr", "counting": "accuracy_1_9"}
    bases = list(dict.fromkeys(scores["base"]))
    blocks = evidence_of(Scores(scores, images or {}), history, proxies, bases)
    return evaluate(stated, blocks, mixture, instrument)


def verdict(*arguments, **options) -> str:
    (entry,) = judged(*arguments, **options)
    return entry["verdict"]


@pytest.mark.parametrize(
    "low, high, direction, margin, expected",
    [
        (0.01, 0.2, "higher", 0.0, "reproduced"),
        (-0.2, -0.01, "higher", 0.0, "not reproduced"),
        (-0.1, 0.1, "higher", 0.0, "inconclusive"),
        (-0.02, 0.1, "higher", -0.03, "reproduced"),
        (-0.2, -0.01, "lower", 0.0, "reproduced"),
        (0.01, 0.2, "lower", 0.0, "not reproduced"),
        (-0.05, -0.01, "lower", -0.1, "not reproduced"),
        (0.06, 0.14, "within", 0.0, "reproduced"),
        (0.01, 0.06, "within", 0.0, "inconclusive"),
        (0.2, 0.3, "within", 0.0, "not reproduced"),
    ],
)
def test_judge(low, high, direction, margin, expected):
    bounds = (0.05, 0.15) if direction == "within" else None
    test = ClaimTest(metric="x", method="a", direction=direction, bounds=bounds)
    assert judge(low, high, test, margin) == expected


def test_a_claim_is_as_good_as_its_worst_test():
    yes, no, open_ = "reproduced", "not reproduced", "inconclusive"
    assert [combine(v) for v in ([yes, yes], [yes, open_], [yes, open_, no])] == [yes, open_, no]


# What each claim's methods must score for it to be reproduced, and one number whose move must undo it.
WORLD = {
    "base": {"ocr": 0.6, "gold": 0.3, "diversity": 0.2, "scene_preference_vit": 20.0, "diffusion_loss": 0.5},
    "grpo": {"ocr": 0.9, "gold": 0.2, "diversity": 0.1, "scene_preference_vit": 15.0, "diffusion_loss": 0.8},
    "grpo_shuffled": {"ocr": 0.6, "gold": 0.29, "diversity": 0.19, "scene_preference_vit": 19.0}
    | {"diffusion_loss": 0.52},
    "grpo_no_std": {"ocr": 0.9, "scene_preference_vit": 17.0},
    "grpo_kl_small": {"ocr": 0.8, "scene_preference_vit": 20.0},
    "grpo_kl_large": {"ocr": 0.8, "diffusion_loss": 0.7},
    "grpo_kl_0_4": {"ocr": 0.8, "gold": 0.2},
    "grpo_kl_1_6": {"ocr": 0.8, "gold": 0.25},
    "gardo": {"ocr": 0.9, "diversity": 0.19},
    "gardo_no_diversity": {"ocr": 0.9, "diversity": 0.12, "scene_preference_vit": 20.0},
    "ddrl_synthetic": {"ocr": 0.8, "scene_preference_vit": 20.0, "diffusion_loss": 0.51},
    "ddrl_real": {"ocr": 0.8, "scene_preference_vit": 20.0, "diffusion_loss": 0.51},
    "sft_then_ddrl": {"ocr": 0.8, "diffusion_loss": 0.51},
    "grpo_multi_reward": {"ocr": 0.7},
    "diffusion_nft": {"ocr": 0.9, "diversity": 0.1, "scene_preference_vit": 15.0},
    "diffusion_nft_kl": {"ocr": 0.7},
    "diffusion_nft_gardo": {"ocr": 0.9, "diversity": 0.2, "scene_preference_vit": 18.0},
}
CURVES = {"grpo": [0.6, 0.8, 0.9], "gardo": [0.6, 0.8, 0.9], "gardo_no_diversity": [0.6, 0.8, 0.9]}
CURVES |= {"grpo_multi_reward": [0.6, 0.6, 0.7]}
MOVES = [
    ("G1", "grpo", "diversity", 0.3),
    ("G1", "grpo", "scene_preference_vit", 25.0),
    ("G1", "grpo_shuffled", "scene_preference_vit", 14.0),  # drift does as much
    ("G1", "grpo_shuffled", "diversity", 0.05),
    ("Definition 1", "grpo", "gold", 0.4),
    ("Definition 1", "grpo_shuffled", "gold", 0.1),
    ("Definition 1", "grpo", "ocr", 0.6),
    ("G2", "grpo_no_std", "scene_preference_vit", 14.0),
    ("G2", "grpo_shuffled", "scene_preference_vit", 14.0),
    ("G3", "grpo_kl_small", "ocr", 0.95),
    ("G3", "grpo_kl_small", "ocr", 0.55),  # an untrained model has a low proxy as well
    ("G3", "grpo_kl_small", "scene_preference_vit", 18.0),
    ("G4", "gardo_no_diversity", "ocr", 0.8),
    ("G5", "gardo", "diversity", 0.1),
    ("G9", "diffusion_nft_gardo", "scene_preference_vit", 14.0),
    ("G9", "diffusion_nft_kl", "ocr", 0.95),
    ("D1", "grpo_kl_0_4", "gold", 0.4),
    ("D1", "grpo_kl_1_6", "ocr", 0.5),
    ("D1", "grpo_shuffled", "gold", 0.1),
    ("D2", "ddrl_synthetic", "ocr", 0.7),
    ("D3", "ddrl_synthetic", "diffusion_loss", 0.6),
    ("D3", "grpo_kl_large", "diffusion_loss", 0.51),
    ("D3", "grpo_shuffled", "diffusion_loss", 0.9),
    ("D4", "ddrl_real", "diffusion_loss", 0.6),
    ("D4", "base", "ocr", 0.85),
    ("D5", "ddrl_real", "ocr", 0.5),
    ("D5", "ddrl_real", "scene_preference_vit", 18.0),
]
KL = make_history("train/kl_loss", grpo_kl_0_4=[1.0, 2.0, 2.1], grpo_kl_1_6=[1.0, 2.0, 2.1])


@pytest.mark.parametrize("name, method, metric, moved", MOVES)
def test_moved_scores_flip_the_verdict(name, method, metric, moved):
    history = pd.concat([make_history(**CURVES), KL])
    assert verdict(name, make_scores(**WORLD), history) == "reproduced"
    changed = {**WORLD, method: {**WORLD[method], metric: moved}}
    assert verdict(name, make_scores(**changed), history) == "not reproduced"


@pytest.mark.parametrize(
    "name, curves, moved",
    [
        ("G4", CURVES, {"gardo_no_diversity": [0.6, 0.6, 0.7]}),
        ("G8", CURVES, {"grpo_multi_reward": [0.8, 0.9, 0.9]}),
        ("D1", {"grpo_kl_0_4": [1, 2, 2.2], "grpo_kl_1_6": [1, 2, 2]}, {"grpo_kl_0_4": [1, 2, 4]}),
    ],
)
def test_moved_histories_flip_the_verdict(name, curves, moved):
    logged = {"D1": "train/kl_loss"}.get(name, "reward/proxy_mean")
    scores = make_scores(**WORLD)
    assert verdict(name, scores, make_history(logged, **curves)) == "reproduced"
    assert verdict(name, scores, make_history(logged, **{**curves, **moved})) == "not reproduced"


def test_counting_is_judged_on_counting_alone():
    values = {"accuracy_10": 0.1, "accuracy_11": 0.1}
    better = {k: v + 0.2 for k, v in values.items()}
    methods = {"grpo": values, "grpo_x": values, "gardo": better}
    assert verdict("G7", make_scores(task="counting", **methods)) == "reproduced"
    methods["grpo_x"] = {**values, "accuracy_11": 0.5}
    assert verdict("G7", make_scores(task="counting", **methods)) == "not reproduced"
    assert "missing" in judged("G7", make_scores(**WORLD))[0]


def test_a_second_base_has_tests_of_its_own():
    main = make_scores(**{m: WORLD[m] for m in ("base", "grpo", "gardo")})
    gardo = {"ocr": 0.9, "diversity": 0.2, "scene_preference_vit": 18.0}
    for value, expected in ((18.0, "reproduced"), (12.0, "not reproduced")):
        values = {"grpo": WORLD["grpo"], "gardo": {**gardo, "scene_preference_vit": value}}
        (entry,) = judged("G9", pd.concat([main, make_scores("second", **values)]))
        assert (entry["base"], entry["verdict"]) == ("second", expected)


def test_votes_compare_images_of_one_prompt_and_seed():
    value = {"scene_preference_vit": 1.0}
    scores = make_scores(base=value, ddrl_synthetic=value, grpo=value)
    key = {(r.run, r.method): (r.run, r.step, r.suite, r.metric) for r in scores.itertuples()}
    for better, expected in (("ddrl_synthetic", "reproduced"), ("grpo", "not reproduced")):
        images = {
            k: single(np.arange(12.0).reshape(3, 4) + (method == better)) for (_, method), k in key.items()
        }
        (entry,) = judged("D6", scores, images=images)
        assert entry["verdict"] == expected and "votes for grpo − votes for ddrl" in str(entry["tests"])
    tie = {k: single(np.zeros((3, 4))) for k in key.values()}
    assert judged("D6", scores, images=tie)[0]["effect"] == 0
    mixed = {k: single([[0.0, 1.0]] if "grpo__" in k[0] else [[0.5, 0.5]]) for k in key.values()}
    assert judged("D6", scores, images=mixed)[0]["effect"] == 0  # one vote each
    assert "missing" in judged("D6", scores)[0]  # no single images, no votes


def test_an_optional_test_needs_no_runs_and_counts_where_it_has_them():
    value = {"scene_preference_vit": 1.0}
    scores = make_scores(base=value, ddrl_synthetic=value, grpo=value, sft=value)
    images = {
        (r.run, r.step, r.suite, r.metric): single(
            np.arange(12.0).reshape(3, 4) + {"ddrl_synthetic": 1, "sft": 2}.get(r.method, 0)
        )
        for r in scores.itertuples()
    }
    assert verdict("D6", scores, images=images) == "not reproduced"
    assert verdict("D6", scores[scores.method != "sft"], images=images) == "reproduced"


G1 = ("base", "grpo", "grpo_shuffled")


def test_a_metric_of_another_suite_is_found_where_the_own_suite_lacks_it():
    # The papers measure unseen metrics on DrawBench, whatever was trained.
    values = {m: {k: v for k, v in WORLD[m].items() if k != "scene_preference_vit"} for m in G1}
    unseen = {m: {"hps_v3": WORLD[m]["scene_preference_vit"]} for m in values}
    scores = pd.concat([make_scores(**values), make_scores(**unseen).assign(suite="drawbench")])
    (entry,) = judged("G1", scores)
    assert entry["verdict"] == "reproduced" and "hps_v3" in str(entry["tests"])


def test_a_margin_in_standard_deviations_is_one_of_the_prompts():
    metric = "scene_preference_vit"
    scores = make_scores(**{m: {"ocr": WORLD[m]["ocr"], metric: 20.0} for m in ("grpo_no_std", "base")})
    scores.loc[(scores.method == "base") & (scores.metric == "ocr"), "value"] -= 0.3
    scores = pd.concat([scores, make_scores(grpo_kl_small={"ocr": 0.8, metric: 19.0})])
    for spread, expected in ((4.0, "not reproduced"), (8.0, "reproduced")):
        prompts = spread * np.array([[-1.0], [1.0]])  # one less: 1 / 4 or 1 / 8 of a standard deviation
        images = {
            (r.run, r.step, r.suite, r.metric): single(r.value + prompts)
            for r in scores[scores.metric == metric].itertuples()
        }
        assert verdict("G3", scores, images=images) == expected


def test_the_mixture_decides_its_claim():
    found = {
        "diversity_only": 0.8,
        "gardo": 1,
        "ddpo_large_beta": 0.2,
        "ddpo_small_beta": 0,
    }  # of 10 settings

    def mixture(measure="central_mode_found", **moved):
        rows = [
            (m, seed, f"setting {setting}", step, measure, float(setting < 10 * v and step > 0))
            for m, v in {**found, **moved}.items()
            for seed in SEEDS
            for setting in range(10)
            for step in (0, 400)
        ]
        return pd.DataFrame(rows, columns=["method", "seed", "setting", "step", "measure", "value"])

    scores = make_scores(**WORLD)
    (entry,) = judged("G10", scores, mixture=mixture())
    assert (entry["verdict"], entry["base"]) == ("reproduced", MIXTURE)
    assert verdict("G10", scores, mixture=mixture(ddpo_small_beta=1)) == "not reproduced"
    # As many settings with as without it: the interval reaches over the margin.
    assert verdict("G10", scores, mixture=mixture(gardo=0.5)) == "inconclusive"
    one = mixture(gardo=1)[lambda rows: rows["setting"] == "setting 5"]
    assert verdict("G10", scores, mixture=one.drop(columns="setting")) == "reproduced"
    (untested,) = judged("G10", scores, mixture=mixture("reward"))
    assert untested["verdict"] == "not testable here" and "passes its checks" in untested["missing"]
    assert judged("G10", scores)[0]["missing"] == "the Gaussian mixture has not been run"


def test_prompts_widen_an_interval_and_one_seed_decides_nothing():
    scores = make_scores(**{m: {"diversity": WORLD[m]["diversity"]} for m in ("gardo", "gardo_no_diversity")})
    images = {
        (r.run, r.step, r.suite, r.metric): single(
            r.value + np.array([[-0.09], [0.0], [0.09]]) * (r.method == "gardo")
        )
        for r in scores.itertuples()
    }
    (alone,), (both,) = judged("G5", scores), judged("G5", scores, images=images)
    assert alone["effect"] == pytest.approx(both["effect"])
    assert both["interval"][0] < alone["interval"][0]
    assert verdict("G5", scores[scores.seed == 1], images=images) == "inconclusive"


def test_every_claim_of_the_papers_has_an_entry(tmp_path):
    write([], None, CLAIMS, tmp_path / "claims.md")
    entries = json.loads((tmp_path / "claims.json").read_text())
    wanted = {*(f"G{i}" for i in range(1, 11)), *(f"D{i}" for i in range(1, 7))}
    assert wanted <= {e["id"] for e in entries}
    for entry in entries:
        keys = {"id", "statement", "source", "test", "effect", "interval", "seeds", "verdict", "missing"}
        marked = "by construction" if entry["id"] == "G6" else "inconclusive"
        assert keys <= set(entry) and entry["verdict"] == marked
    history = pd.concat([make_history(**CURVES), KL])
    blocks = evidence_of(Scores(make_scores(**WORLD)), history, {"ocr": "ocr"}, ["b"])
    write(blocks, None, CLAIMS, tmp_path / "claims.md")
    text = (tmp_path / "claims.md").read_text()
    assert "Δ-Vote" in text or "no task has what every test needs" in text
    assert "G10" in text and "the Gaussian mixture has not been run" in text
    entry = next(e for e in json.loads((tmp_path / "claims.json").read_text()) if e["id"] == "D2")
    low, high = entry["interval"]
    assert low <= entry["effect"] <= high and entry["seeds"] == 3


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda c: c["claims"]["G5"].update(verdict="reproduced"), "claims.G5.verdict"),
        (lambda c: c["claims"]["G5"]["tests"][0].update(history="x"), "exactly one of metric"),
        (lambda c: c["claims"]["G6"]["tests"][0].pop("bounds"), "bounds belong"),
        (lambda c: c["claims"]["D6"]["tests"][0].pop("against"), "need against"),
        (lambda c: c.update(level=1.5), "level"),
    ],
)
def test_a_verdict_cannot_be_written_and_faults_are_named(tmp_path, change, message):
    import yaml

    stated = read_yaml(CLAIMS)
    change(stated)
    path = tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump(stated))
    with pytest.raises(ConfigError, match=message):
        load(path)


def test_late_growth_needs_enough_steps():
    history = make_history("x", a=[1.0, 2.0, 3.0], b=[1.0, 2.0])
    evidence = Evidence(pd.DataFrame(), history=history)
    assert float(evidence.trained("x", "a", "late growth")[1]) == pytest.approx(1.5)
    assert evidence.trained("x", "b", "late growth") == {}
    assert isinstance(load(CLAIMS), Claims)
