"""The evaluation of a run: what is sampled, kept and deleted. Its model counts its calls and draws noise."""

import json

import numpy as np
import pandas as pd
import pytest

from base_models.base import ADAPTER_FILE
from core.files import to_yaml, write_json, write_text
from core.settings import read_yaml
from evaluation import evaluate, images, sample, score
from evaluation.configuration import load_evaluation, run_evaluation
from evaluation.scores import COLUMNS, COSTS, IMAGE_COLUMNS, KL
from runs.config_files import load_task
from runs.resolve import resolve_run

CONFIG = read_yaml("config/smoke.yaml") | {"snapshot_shares": [0.34, 0.67]}


@pytest.fixture
def calls(monkeypatch):
    """What was asked of the model: suites sampled, adapters loaded, steps measured."""
    found = {"sampled": [], "loaded": [], "measured": 0}

    class Model:
        def load_lora(self, folder):
            found["loaded"].append(folder.name)

    def pixels(self, suite):
        found["sampled"].append(suite)
        rng = np.random.default_rng(len(found["sampled"]))
        count = len(self.prompts[suite]) * self.settings.images_per_prompt
        return iter(rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8))

    def measures(self):
        found["measured"] += 1
        return {KL: 0.5}

    monkeypatch.setattr(sample, "open_base_model", lambda config, device: Model())
    monkeypatch.setattr(sample.Sampler, "images", pixels)
    monkeypatch.setattr(sample.Sampler, "measures", measures)
    monkeypatch.setattr(score.rewards, "get", lambda name: lambda x, prompts, metadata: x.flatten(1).mean(1))
    monkeypatch.setattr(score, "get_features", lambda name: lambda x: x.flatten(1))
    return found


@pytest.fixture
def run(tmp_path):
    """A finished run whose first two evaluated adapters are equal."""
    config = resolve_run("tiny-sd3", "ocr", "grpo", 901, CONFIG)
    folder = tmp_path / config.run
    write_text(folder / "run.yaml", to_yaml(config.model_dump()))
    write_json(folder / "provenance.json", dict.fromkeys(COSTS.values(), 1))
    for content, path in zip("aab", sample.adapters(folder, config).values(), strict=True):
        write_text(path / ADAPTER_FILE, content)
    return folder


def settings(folder, **changed):
    config = load_evaluation({"images_per_prompt": 2, **changed})
    path = folder / "evaluation.yaml"
    write_text(path, to_yaml(run_evaluation(config, load_task("ocr")).model_dump(mode="json")))
    return path


def evaluated(folder, path) -> pd.DataFrame:
    out = folder / "scores.parquet", folder / "image_scores.parquet"
    evaluate.evaluate_run(folder, path, *out)
    assert list(pd.read_parquet(out[1])) == IMAGE_COLUMNS
    return pd.read_parquet(out[0])


def test_equal_adapters_are_sampled_and_measured_once(run, calls):
    scores = evaluated(run, settings(run))
    assert calls == {
        "sampled": ["ocr", "ocr", "geneval"],
        "loaded": ["step_000001", "adapter"],
        "measured": 2,
    }
    assert list(scores) == COLUMNS and scores["own"].equals(scores["suite"] == "ocr")
    ocr = scores[scores["metric"] == "ocr"].set_index("step")["value"]
    assert ocr[1] == ocr[2] != ocr[3]
    assert (scores[scores["metric"] == KL]["step"].tolist()) == [1, 2, 3]
    sheets = {(suite, step) for _, suite, step in images.sheets(run / "images")}
    assert sheets == {("ocr", 1), ("ocr", 2), ("ocr", 3), ("geneval", 3)}


def test_what_is_there_is_kept_and_only_what_is_lacking_made(run, calls):
    first = evaluated(run, settings(run))
    before = {**calls, "sampled": list(calls["sampled"]), "loaded": list(calls["loaded"])}
    fewer = {"ocr": {"prompts": "resources/prompts/ocr_test.jsonl", "metrics": ["ocr"]}}
    suites = load_evaluation().model_dump()["suites"] | fewer
    again = evaluated(run, settings(run, suites=suites))  # other metrics: the images stay
    assert calls == before
    common = first.merge(again, on=["step", "suite", "metric"])
    assert len(common) == len(again) < len(first) and (common["value_x"] == common["value_y"]).all()
    path = images.path_of(run / "images", "ocr", 3)
    path.write_bytes(path.read_bytes()[:-50])
    evaluated(run, settings(run))  # a damaged file is made again, alone
    assert calls["sampled"] == [*before["sampled"], "ocr"] and calls["measured"] == 2
    write_text(run / "adapter" / ADAPTER_FILE, "c")  # trained again
    evaluated(run, settings(run))
    assert calls["sampled"][-2:] == ["ocr", "geneval"] and calls["measured"] == 3


def test_images_are_deleted_once_scored_where_nobody_wants_them(run, calls):
    scores = evaluated(run, settings(run, keep_images=False))
    assert not list((run / "images").glob("*.parquet")) and len(list(images.sheets(run / "images"))) == 4
    assert len(scores[scores["metric"] == "gold"]) == 4
    assert json.loads(sample.measures_file(run / "images", 3).read_text())["measured"] == {KL: 0.5}
