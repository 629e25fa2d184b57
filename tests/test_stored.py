"""Finished runs in a few small tables, and a grid that takes them from there."""

import json

import pandas as pd
import pytest

from core.files import to_yaml, write_json, write_text
from core.settings import ConfigError, read_yaml
from evaluation.scores import RUN
from reporting import stored
from runs.resolve import resolve_run
from workflow import plan

CONFIG = read_yaml("config/smoke.yaml")


def finished_run(folder, method: str, value: float):
    """A run folder as training and scoring leave it, but for adapter and images."""
    run = resolve_run("tiny-sd3", "ocr", method, 901, CONFIG)
    path = folder / run.run
    write_text(path / "run.yaml", to_yaml(run.model_dump()))
    write_json(path / "provenance.json", {"run": run.run, "wall_seconds": value})
    key = {name: getattr(run, name) for name in RUN}
    cell = {"step": 3, "suite": "ocr", "metric": "gold", "value": value}
    tidy = cell | {"own": True, "role": "gold", "n_images": 2}
    pd.DataFrame([key | tidy]).to_parquet(path / "scores.parquet")
    image = {"run": run.run, "prompt": 0, "image": 1}
    pd.DataFrame([cell | image]).to_parquet(path / "image_scores.parquet")
    history = {"step": [1, 2], "name": ["reward/proxy_mean"] * 2, "value": [value, value]}
    table = pd.DataFrame(history)
    (table if method != "base" else table[:0]).to_parquet(path / "history.parquet")
    return path


def test_a_run_comes_back_as_it_was_kept(tmp_path):
    folders = [finished_run(tmp_path / "runs", *run) for run in (("base", 0.1), ("grpo", 0.7))]
    stored.keep(folders, tmp_path / "store")
    assert {path.name for path in (tmp_path / "store").iterdir()} == set(stored.files())
    stored.restore([folder.name for folder in folders], tmp_path / "store", tmp_path / "back")
    for folder in folders:
        back = tmp_path / "back" / folder.name
        assert {path.name for path in back.iterdir()} == set(stored.RESTORED)
        for name in stored.TABLES.values():
            assert pd.read_parquet(back / name).equals(pd.read_parquet(folder / name)), name
        assert (back / "provenance.json").read_text() == (folder / "provenance.json").read_text()


def test_a_store_grows_and_replaces_runs_of_the_same_name(tmp_path):
    store = tmp_path / "store"
    stored.keep([finished_run(tmp_path / "runs", "grpo", 0.7)], store)
    stored.keep([finished_run(tmp_path / "runs", "base", 0.1)], store)
    stored.keep([finished_run(tmp_path / "later", "grpo", 0.8)], store)
    assert pd.read_parquet(store / "scores.parquet")["value"].tolist() == [0.1, 0.8]
    costs = [json.loads(text)["wall_seconds"] for text in pd.read_parquet(store / stored.RUNS)["provenance"]]
    assert costs == [0.1, 0.8]


def test_an_unfinished_run_is_not_kept_and_an_unknown_one_not_restored(tmp_path):
    folder = finished_run(tmp_path / "runs", "grpo", 0.7)
    stored.keep([folder], tmp_path / "store")
    with pytest.raises(ConfigError, match="holds no run 'magic'; valid: tiny-sd3__ocr__grpo__s901"):
        stored.restore(["magic"], tmp_path / "store", tmp_path / "back")
    (folder / "provenance.json").unlink()
    with pytest.raises(ConfigError, match=r"no finished and scored run: it has no provenance\.json"):
        stored.keep([folder], tmp_path / "store")


def test_only_runs_with_the_same_settings_are_taken(tmp_path, monkeypatch):
    store = tmp_path / "store"
    stored.keep([finished_run(tmp_path / "runs", m, 0.5) for m in ("base", "grpo")], store)
    runs = {}
    for method in ("base", "grpo", "gardo"):
        run = resolve_run("tiny-sd3", "ocr", method, 901, CONFIG)
        runs[run.run] = run
    base, grpo, _ = runs
    monkeypatch.setattr(plan, "RESULTS", tmp_path / "results")
    assert plan.stored_runs(runs, store) == [base, grpo]
    other = CONFIG | {"training": CONFIG["training"] | {"learning_rate": 1.0e-5}}
    changed = resolve_run("tiny-sd3", "ocr", "grpo", 901, other)
    assert plan.stored_runs(runs | {grpo: changed}, store) == [base]
    (tmp_path / "results/runs" / grpo / "adapter").mkdir(parents=True)  # trained here
    assert plan.stored_runs(runs, store) == [base]


def test_a_run_that_another_starts_from_is_trained(tmp_path, monkeypatch):
    store = tmp_path / "store"
    stored.keep([finished_run(tmp_path / "runs", "sft", 0.5)], store)
    first, second = (resolve_run("tiny-sd3", "ocr", m, 901, CONFIG) for m in ("sft", "sft_then_ddrl"))
    monkeypatch.setattr(plan, "RESULTS", tmp_path / "results")
    assert plan.stored_runs({first.run: first}, store) == [first.run]
    assert plan.stored_runs({first.run: first, second.run: second}, store) == []
    stored.keep([finished_run(tmp_path / "runs", "sft_then_ddrl", 0.5)], store)
    both = {first.run: first, second.run: second}
    assert plan.stored_runs(both, store) == [first.run, second.run]
    again = second.model_copy(update={"hash": "another"})
    assert plan.stored_runs(both | {second.run: again}, store) == []


def test_a_folder_that_is_no_store_is_named():
    with pytest.raises(
        ConfigError, match="key 'stored_runs' is 'docs'; valid: a folder that holds runs.parquet"
    ):
        stored.hashes("docs")


def test_runs_of_two_stores_are_compared_where_their_settings_are_equal(tmp_path, monkeypatch, capsys):
    first, second = tmp_path / "first", tmp_path / "second"
    stored.keep([finished_run(tmp_path / "a", m, 0.5) for m in ("base", "grpo")], first)
    stored.keep([finished_run(tmp_path / "b", m, 0.75) for m in ("grpo", "gardo")], second)
    third = tmp_path / "third"
    stored.keep([finished_run(tmp_path / "c", "base", 0.5)], third)
    table = stored.compare(first, second, ["gold"]).set_index("metric")
    assert list(table["run"]) == ["tiny-sd3__ocr__grpo__s901"]
    assert table.loc["gold", "difference"] == pytest.approx(0.25)
    monkeypatch.setattr("sys.argv", ["stored", "compare", str(first), str(second)])
    assert stored.main() == 0
    assert "| gold | 0.500 | 0.750 | +0.250 |" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="hold no run of the same name and settings"):
        stored.compare(second, third)
