"""The instrument's verdicts are computed: each is flipped by its own fault, and claims follow them."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from core.settings import ConfigError
from evaluation.scores import Scores
from reporting import instrument, standing
from reporting.claim_tables import caption
from reporting.claim_tests import load as load_claims
from reporting.claims import evaluate as evaluate_claims
from reporting.evidence import evidence_of
from reporting.instrument_settings import INSTRUMENT, load
from reporting.statistics import smallest_effect

CONFIG = load(INSTRUMENT)
SEEDS, STEPS = (1, 2, 3), 40
OWN = "ocr_shortcut_strong"
ROLES = {
    "ocr": "proxy",
    "exploit_rate": "proxy",
    "gold": "gold",
    "scene_text_score": "unseen",
    "diversity": "diversity",
}
# Metric -> value at the last step; the snapshot at half of the training lies halfway to the base.
WORLD = {
    "base": {"ocr": 0.6, "gold": 0.3, "exploit_rate": 0.05, "scene_text_score": 20.0, "diversity": 0.2},
    "grpo": {"ocr": 0.9, "gold": 0.2, "exploit_rate": 0.9, "scene_text_score": 15.0, "diversity": 0.1},
    "grpo_shuffled": {"ocr": 0.61, "gold": 0.29, "scene_text_score": 19.9, "diversity": 0.19},
    "grpo_oracle": {"ocr": 0.7, "gold": 0.5},
    "gardo": {"ocr": 0.9, "gold": 0.3, "scene_text_score": 20.0, "diversity": 0.2},
    "gardo_random_gate": {"ocr": 0.9, "gold": 0.29},
}
RISE = np.minimum(0.6 + 0.02 * np.arange(STEPS), 0.95)
CURVES = {
    ("grpo", "reward/proxy_mean"): RISE,
    ("grpo_shuffled", "reward/proxy_mean"): np.full(STEPS, 0.6),
    ("grpo_shuffled", "reward/gold_mean"): np.full(STEPS, 0.3),
}
PASSING = {
    "negative control": "passes",
    "plateau": "passes",
    "oracle": "passes",
    "exploit": "passes",
    "resolution": "passes",
    "random gate": None,
}


def make_scores(world, task=OWN, spread=0.001, seeds=SEEDS) -> pd.DataFrame:
    rows = []
    for method, values in world.items():
        for seed in seeds:
            for metric, value in values.items():
                start = world["base"].get(metric, value) if "base" in world else value
                for step, share in ((0, 1.0),) if method == "base" else ((STEPS // 2, 0.5), (STEPS, 1.0)):
                    shift = spread * (seed - 2) * (method != "base")
                    cell = {
                        "step": step,
                        "suite": task,
                        "own": True,
                        "metric": metric,
                        "role": ROLES.get(metric, "unseen"),
                    }
                    key = {"run": f"b__{task}__{method}__s{seed}", "base": "b", "task": task}
                    value_then = start + share * (value - start) + shift
                    rows.append(
                        {**key, "method": method, "seed": seed, **cell, "value": value_then, "n_images": 8}
                    )
    return pd.DataFrame(rows)


def make_history(curves, task=OWN, seeds=SEEDS) -> pd.DataFrame:
    rows = [
        ("b", task, method, seed, step, name, value + 0.001 * (seed - 2))
        for (method, name), values in curves.items()
        for seed in seeds
        for step, value in enumerate(values, 1)
    ]
    return pd.DataFrame(rows, columns=["base", "task", "method", "seed", "step", "name", "value"])


def blocks_of(world=WORLD, curves=CURVES, task=OWN, **options):
    history = make_history(curves, task, options.get("seeds", SEEDS))
    return evidence_of(Scores(make_scores(world, task, **options)), history, {task: "ocr"}, ["b"])


def found(*arguments, **options):
    return instrument.evaluate(blocks_of(*arguments, **options), CONFIG)


def verdicts(*arguments, **options):
    return {e["check"]: e["verdict"] for e in found(*arguments, **options)["checks"]}


def changed(method, **values):
    return {**WORLD, method: {**WORLD[method], **values}}


def test_every_check_passes_where_the_controls_do_as_they_should():
    assert verdicts() == PASSING
    (place,) = found()["standings"]
    assert (place["reading"], place["text"]) == ("against base", "passes")


HISTORY_DRIFT = {**CURVES, ("grpo_shuffled", "reward/gold_mean"): np.linspace(0.3, 0.2, STEPS)}
COMES_AND_GOES = np.concatenate([np.full(15, 0.6), np.full(10, 0.5), np.full(15, 0.6)])
FALLS_BACK = np.concatenate([RISE[:-8], np.full(8, 0.8)])


@pytest.mark.parametrize(
    "check, world, curves, said",
    [
        ("negative control", changed("grpo_shuffled", gold=0.25), CURVES, "change of gold on the test set"),
        ("negative control", changed("grpo_shuffled", ocr=0.7), CURVES, "change of proxy on the test set"),
        ("negative control", WORLD, HISTORY_DRIFT, "change of gold in training"),
        (
            "negative control",
            WORLD,
            {**CURVES, ("grpo_shuffled", "reward/proxy_mean"): COMES_AND_GOES},
            "change of proxy in training",
        ),
        ("plateau", WORLD, {**CURVES, ("grpo", "reward/proxy_mean"): FALLS_BACK}, "best window minus last"),
        (
            "plateau",
            WORLD,
            {**CURVES, ("grpo", "reward/proxy_mean"): np.linspace(0.6, 1.4, STEPS)},
            "the one two before",
        ),
        ("oracle", changed("grpo_oracle", gold=0.32), CURVES, "grpo_oracle − base"),
        ("exploit", changed("grpo", exploit_rate=0.5), CURVES, "rate of grpo"),
        ("exploit", changed("base", exploit_rate=0.3), CURVES, "rate of base"),
        ("exploit", changed("grpo", gold=0.31), CURVES, "gold: grpo − base"),
        # The drift takes 0.02, within what is allowed, and KL-free training loses no more.
        (
            "exploit",
            {**changed("grpo", gold=0.285), **{"grpo_shuffled": {"ocr": 0.6, "gold": 0.28}}},
            CURVES,
            "",
        ),
    ],
)
def test_a_fault_flips_its_own_verdict_and_no_other(check, world, curves, said):
    entries = {e["check"]: e for e in found(world, curves)["checks"]}
    assert {name: e["verdict"] for name, e in entries.items()} == {**PASSING, check: "fails"}
    assert said in entries[check]["reason"]


def test_the_worst_deviation_is_named_with_its_place():
    curves = {**CURVES, ("grpo_shuffled", "reward/proxy_mean"): COMES_AND_GOES}
    (control,) = (e for e in found(WORLD, curves)["checks"] if e["check"] == "negative control")
    part = next(p for p in control["measured"] if p["what"] == "change of proxy in training")
    assert part["value"] == pytest.approx(-0.1) and part["where"] == "(iterations 17–20)"
    (text,) = [p["where"] for p in control["measured"] if p["what"] == "change of gold on the test set"]
    assert text == "(step 40)" and control["seeds"] == 3


def test_seeds_too_far_apart_cannot_resolve_the_effects():
    rates = changed("grpo_oracle", gold=0.9)  # whose interval stays above 0
    assert verdicts(rates, spread=0.03) == {**PASSING, "resolution": "fails"}
    assert smallest_effect(np.array([0.0, 0.1, 0.2])) == pytest.approx(4.302653 * 0.1 / 3**0.5)
    assert smallest_effect(np.array([[0.0, 0.2], [0.1, 0.3]])) == pytest.approx(12.7062 * 0.05, rel=1e-4)
    assert smallest_effect(np.array([0.1])) is None


def test_what_did_not_run_is_not_measured():
    alone = {m: WORLD[m] for m in ("base", "grpo")}
    entries = {e["check"]: e for e in found(alone, {})["checks"]}
    assert {e["verdict"] for e in entries.values()} == {"not measured"}
    assert entries["negative control"]["reason"] == "no runs of grpo_shuffled"
    assert entries["plateau"]["reason"] == "no training history of grpo"
    (place,) = found(alone, {})["standings"]
    assert place["text"] == "not testable (negative control not measured, plateau not measured)"
    short = {**CURVES, ("grpo", "reward/proxy_mean"): RISE[:4]}
    assert verdicts(WORLD, short)["plateau"] == "not measured"
    unlogged = {k: v for k, v in CURVES.items() if k[0] != "grpo_shuffled"}
    assert verdicts(WORLD, unlogged)["negative control"] == "not measured"  # its way is not known
    no_gold = {k: v for k, v in CURVES.items() if k[1] != "reward/gold_mean"}
    assert verdicts(WORLD, no_gold) == PASSING  # old histories: the test set has it
    assert set(verdicts(seeds=(1,)).values()) == {"not measured"}


def test_a_task_without_a_planted_shortcut_or_with_a_weak_one():
    plain = {m: {k: v for k, v in values.items() if k != "exploit_rate"} for m, values in WORLD.items()}
    assert "exploit" not in verdicts(plain, task="geneval")
    weak = {**WORLD, "grpo": {**WORLD["grpo"], "exploit_rate": 0.3}}
    assert verdicts(weak, task="ocr_shortcut_weak")["exploit"] is None
    # OCR has a threshold of its own.
    assert verdicts({**plain, "grpo_oracle": {"gold": 0.37}}, task="ocr")["oracle"] == "fails"
    assert verdicts({**plain, "grpo_oracle": {"gold": 0.37}}, task="geneval")["oracle"] == "passes"


def test_a_pattern_gives_tried_settings_the_thresholds_of_their_task():
    assert CONFIG.of("tuning_preference_x").plateau == CONFIG.of("preference").plateau
    assert CONFIG.of("preference").plateau != CONFIG.of("ocr").plateau == CONFIG.thresholds.plateau


def test_photographs_have_no_gold_and_are_watched_by_unseen_metrics():
    photographs = ("ocr", "scene_text_score", "diversity")
    world = {m: {k: v for k, v in values.items() if k in photographs} for m, values in WORLD.items()}
    scores = make_scores(world, "geneval")
    base = (scores.method == "base") & (scores.metric == "scene_text_score")
    scores.loc[base, "value"] += 1.0 * (scores.loc[base, "seed"] - 2)  # a spread of 0.82
    for drop, expected in ((0.1, "passes"), (0.3, "fails")):
        lower = (scores.method == "grpo_shuffled") & (scores.metric == "scene_text_score")
        scores.loc[lower, "value"] = 20.0 - drop + 1.0 * (scores.loc[lower, "seed"] - 2)
        history = make_history(CURVES, "geneval")
        blocks = evidence_of(Scores(scores), history, {"geneval": "ocr"}, ["b"])
        entries = {e["check"]: e["verdict"] for e in instrument.evaluate(blocks, CONFIG)["checks"]}
        assert entries["negative control"] == expected and entries["oracle"] == "not measured"


def judged(name, world, curves, tmp_path):
    """Entries of one claim, by way of the written file."""
    blocks, stated = blocks_of(world, curves), load_claims(Path("config/claims.yaml"))
    instrument.write(blocks, INSTRUMENT, tmp_path / "instrument.md")
    stated = stated.model_copy(update={"claims": {name: stated.claims[name]}})
    return evaluate_claims(stated, blocks, None, standing.read(tmp_path / "instrument.json"))


def test_a_required_check_that_fails_leaves_nothing_to_test(tmp_path):
    (entry,) = judged("Definition 1", WORLD, CURVES, tmp_path)
    assert entry["verdict"] == "reproduced" and entry["resolvable"] < 0.01
    curves = {**CURVES, ("grpo", "reward/proxy_mean"): FALLS_BACK}
    (entry,) = judged("Definition 1", WORLD, curves, tmp_path)
    assert entry["verdict"] == "not testable here" and "plateau fails" in entry["reason"]
    assert {t["verdict"] for t in entry["tests"]} == {"not testable here"} and entry["effect"] is not None
    alone = {m: WORLD[m] for m in ("base", "grpo")}
    (entry,) = judged("Definition 1", alone, CURVES, tmp_path)
    assert entry["verdict"] == "not testable here" and "no runs of grpo_shuffled" in entry["reason"]


def test_a_control_that_drifts_is_what_losses_are_counted_from(tmp_path):
    drifting = changed("grpo_shuffled", gold=0.1)
    (entry,) = judged("Definition 1", drifting, CURVES, tmp_path)
    told = {t["test"]: t for t in entry["tests"]}
    assert entry["verdict"] == "not reproduced" and "relative to its control" in entry["instrument"]
    assert set(told) == {  # one test of gold, since the control stands for the base
        "proxy: grpo − base > 0.1",
        "gold: grpo − grpo_shuffled at the same step < 0 (instead of base)",
    }
    less = {**drifting, "grpo_shuffled": {**drifting["grpo_shuffled"], "gold": 0.25}}
    assert judged("Definition 1", less, CURVES, tmp_path)[0]["verdict"] == "reproduced"


def test_the_control_counts_at_the_same_step(tmp_path):
    drifting = changed("grpo_shuffled", gold=0.1)
    blocks = blocks_of(drifting)
    ((place, evidence),) = blocks
    early = evidence.rows.assign(step=evidence.rows["step"].where(evidence.rows["method"] != "grpo", 20))
    half = evidence.every[(evidence.every["method"] != "grpo") | (evidence.every["step"] == 20)]
    stopped = pd.concat([early[early["method"] != "grpo"], half[half["method"] == "grpo"]])
    earlier = type(evidence)(stopped, "ocr", {}, evidence.history, every=evidence.every)
    stated = load_claims(Path("config/claims.yaml"))
    stated = stated.model_copy(update={"claims": {"Definition 1": stated.claims["Definition 1"]}})
    instrument.write(blocks, INSTRUMENT, tmp_path / "instrument.md")
    judgements = standing.read(tmp_path / "instrument.json")
    (entry,) = evaluate_claims(stated, [(place, earlier)], None, judgements)
    gold = next(t for t in entry["tests"] if t["test"].startswith("gold"))
    assert gold["effect"] == pytest.approx(0.25 - 0.2)  # both halfway


def test_controls_are_no_rivals_of_a_method(tmp_path):
    values = {"accuracy_10": 0.1, "accuracy_11": 0.1}
    world = {m: {**WORLD[m], **values} for m in ("base", "grpo", "grpo_shuffled", "grpo_oracle")}
    world["grpo_oracle"] |= {"accuracy_10": 0.9, "accuracy_11": 0.9}
    world["gardo"] = {**WORLD["gardo"], "accuracy_10": 0.3, "accuracy_11": 0.3}
    history = make_history(CURVES, "counting")
    blocks = evidence_of(Scores(make_scores(world, "counting")), history, {"counting": "ocr"}, ["b"])
    instrument.write(blocks, INSTRUMENT, tmp_path / "instrument.md")
    stated = load_claims(Path("config/claims.yaml"))
    stated = stated.model_copy(update={"claims": {"G7": stated.claims["G7"]}})
    (entry,) = evaluate_claims(stated, blocks, None, standing.read(tmp_path / "instrument.json"))
    assert entry["verdict"] == "reproduced" and "grpo_oracle" not in str(entry["tests"])


def test_what_holds_by_construction_is_shown_and_not_counted(tmp_path):
    gate = make_history({("gardo", "train/gated_share"): np.full(STEPS, 0.1)})
    blocks = blocks_of()
    ((place, evidence),) = blocks
    history = pd.concat([evidence.history, gate])
    blocks = [(place, type(evidence)(evidence.rows, "ocr", {}, history, every=evidence.every))]
    stated = load_claims(Path("config/claims.yaml"))
    stated = stated.model_copy(update={"claims": {n: stated.claims[n] for n in ("G6", "Definition 1")}})
    instrument.write(blocks, INSTRUMENT, tmp_path / "instrument.md")
    entries = evaluate_claims(stated, blocks, None, standing.read(tmp_path / "instrument.json"))
    by_id = {e["id"]: e for e in entries}
    assert by_id["G6"]["verdict"] == "by construction" and by_id["G6"]["effect"] == pytest.approx(
        0.1, abs=0.01
    )
    said = caption(entries, 0.95)
    assert said[0] == "reproduced: 1; not reproduced: 0; inconclusive: 0; not testable here: 0."
    assert any("not counted: G6 (the gate is" in sentence for sentence in said)


def test_the_page_and_the_captions_say_what_was_found(tmp_path):
    blocks = blocks_of({**changed("grpo", gold=0.1), "grpo_shuffled": {"ocr": 0.6, "gold": 0.2}})
    instrument.write(blocks, INSTRUMENT, tmp_path / "instrument.md")
    stored = json.loads((tmp_path / "instrument.json").read_text())
    assert stored["checks"][0]["verdict"] == "fails" and stored["controls"][0] == "grpo_shuffled"
    page = (tmp_path / "instrument.md").read_text()
    assert "change of gold on the test set −0.100 [−0.101, −0.099] (step 40), within ±0.03" in page
    assert page.count("| b | ") == 1 + len(PASSING) and "**fails**" in page and "no pass mark" in page
    assert "<table>" in (tmp_path / "instrument.html").read_text()
    said = standing.sentence(standing.read(tmp_path / "instrument.json"), [("b", OWN), ("b", "other")])
    told = f"{OWN}: judged relative to its control; other: not measured."
    assert said == f"Instrument (instrument.md): {told}"


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda c: c["thresholds"]["plateau"].update(fallen=-1), r"thresholds.plateau.fallen.*-1"),
        (lambda c: c["rows"].pop("oracle"), "'rows.oracle' is missing"),
        (lambda c: c["required"].update(plateau="maybe"), "required.plateau"),
        (
            lambda c: c["tasks"].update(ocr={"oracle": {"gld": 1}}),
            r"tasks.ocr: unknown key 'oracle.gld'; valid keys: gold",
        ),
        (lambda c: c["tasks"].update(ocr={"orcale": {"gold": 1}}), r"tasks.ocr: unknown key 'orcale'"),
    ],
)
def test_faults_of_the_file_are_named(tmp_path, change, message):
    value = yaml.safe_load(INSTRUMENT.read_text())
    change(value)
    path = tmp_path / "instrument.yaml"
    path.write_text(yaml.safe_dump(value))
    with pytest.raises(ConfigError, match=message):
        load(path)
