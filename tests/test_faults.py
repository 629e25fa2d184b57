"""Bad input stops before the first job with one line; reading writes nothing; every stored byte is known."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from core import files, tables
from core.command import seed, threads
from core.prompts import read as read_prompts
from core.settings import ConfigError, Name, Settings, parse, read_yaml
from evaluation import images
from runs import config_files
from runs.main_config import check_main
from training import checkpoint, provenance
from workflow.plan import make_plan

MAIN = {
    "seeds": [901],
    "tables": ["main"],
    "training": {"iterations": 3},
    "grid": [{"base": "tiny-sd3", "task": "ocr", "methods": ["base", "grpo"]}],
}


class Example(Settings):
    name: Name = "a"
    number: int = 1
    share: float = 0.5
    switch: bool = False
    pairs: dict[str, tuple[int, int]] = {}


@pytest.mark.parametrize("value", [{"number": True}, {"share": False}, {"pairs": {"a": [True, 2]}}])
def test_a_boolean_is_no_number(value):
    with pytest.raises(ConfigError, match=f"file: key '{next(iter(value))}"):
        parse(Example, value, "file")
    assert parse(Example, {"switch": True}, "file").switch


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_what_is_not_finite_is_refused(value):
    with pytest.raises(ConfigError, match="key 'share' is .*finite"):
        parse(Example, {"share": value}, "file")


@pytest.mark.parametrize(
    "name", ["../x", "/x", "a;b", "a b", "a$(b)", "a\nb", "", ".a", "a__b", "é", "x" * 81, 5, None, ["a"]]
)
def test_what_is_no_name_is_refused_wherever_a_name_stands(name):
    with pytest.raises(ConfigError, match="key 'name'"):
        parse(Example, {"name": name}, "file")
    row = MAIN["grid"][0]
    for key, value in (("base", name), ("task", name), ("methods", [name])):
        with pytest.raises(ConfigError, match=f"the main config .*key 'grid.0.{key}"):
            check_main({**MAIN, "grid": [{**row, key: value}]})
    if isinstance(name, str):
        with pytest.raises(ConfigError, match="unknown task"):
            config_files.load_task(name)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"seeds": [1, 1]}, "key 'seeds' .*1 stands twice"),
        ({"seeds": [2**32]}, "key 'seeds.0'"),
        ({"seeds": []}, "key 'seeds'"),
        ({"tables": ["main", "main"]}, "'main' stands twice"),
        ({"snapshot_shares": [math.nan]}, "key 'snapshot_shares.0'"),
        ({"grid": []}, "key 'grid'"),
        ({"grid": "x"}, "key 'grid' is 'x'"),
        (
            {"grid": [{**MAIN["grid"][0], "method": "x"}]},
            "unknown key 'grid.0.method'; valid keys: base, methods",
        ),
        ({"stored_runs": "nowhere"}, "key 'stored_runs' is 'nowhere'; valid: a folder"),
        ({"more": 1}, "unknown key 'more'; valid keys: checked, data_per_prompt"),
    ],
)
def test_a_wrong_main_config_is_named_with_key_and_value(change, message):
    with pytest.raises(ConfigError, match=message) as raised:
        check_main({**MAIN, **change})
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "text, message",
    [
        ("a: 1\na: 2\n", r"line 2: key 'a' stands twice"),
        ("b:\n  a: 1\n  a: 2\n", r"line 3: key 'a' stands twice"),
        ("a: [1\n", r"line 2: "),
        ("a: !!python/object:os.system {}\n", "could not determine a constructor"),
        ("- 1\n", "must hold a mapping"),
        ("a: 2020-99-99\n", "month"),
    ],
)
def test_broken_yaml_names_file_and_line(tmp_path, text, message):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as raised:
        read_yaml(path)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)
    path.write_text("base: &b {a: 1}\nother:\n  <<: *b\n  a: 2\n")
    assert read_yaml(path)["other"] == {"a": 2}  # what is merged may be said anew
    path.write_bytes(b"a: \xff\n")
    with pytest.raises(ConfigError, match="no text in UTF-8"):
        read_yaml(path)


@pytest.mark.parametrize(
    "line, message",
    [
        ("5", "not a prompt"),
        ('{"tag": "a"}', "key 'prompt' is missing"),
        ('{"tag": "a", "prompt": "x", "include": [{"class": "circle", "count": -1}]}', "include.0.count"),
        (
            '{"tag": "a", "prompt": "x", "include": [{"class": "circle", "count": "three"}]}',
            "include.0.count",
        ),
        ('{"tag": "a", "prompt": "x", "include": [{"class": "circle", "count": true}]}', "include.0.count"),
        (
            '{"tag": "a", "prompt": "x", "include": [{"class": "c", "count": 1, "position": ["below", 4]}]}',
            "names the object 4; valid: 0 to 0",
        ),
        ('{"tag": "a", "prompt": "x", "weight": NaN}', "NaN is no number"),
        ("[" * 100_000, "not a prompt"),
    ],
)
def test_a_broken_prompt_names_file_and_line(tmp_path, line, message):
    path = tmp_path / "x.jsonl"
    path.write_text('{"tag": "a", "prompt": "with\u2028a separator"}\n' + line + "\n")
    with pytest.raises(ConfigError, match=message) as raised:
        read_prompts(path)
    assert f"{path}, line 2" in str(raised.value)


@pytest.mark.parametrize("text", ["0", "-1", "x", "", "1e3", "1" * 5000])
def test_a_wrong_number_of_a_command_line_is_named(text):
    import argparse

    with pytest.raises(argparse.ArgumentTypeError, match="valid: a whole number from 1 to 1024"):
        threads(text)
    assert seed("0") == 0


def test_a_plan_writes_nothing_and_a_finished_run_keeps_its_settings(tmp_path, monkeypatch):
    for name in ("config", "resources"):
        (tmp_path / name).symlink_to(Path(name).resolve())
    monkeypatch.chdir(tmp_path)
    plan = make_plan(check_main(MAIN))
    assert not Path("results").exists()
    plan.write(())
    name, run = next((n, r) for n, r in plan.runs.items() if r.method == "grpo")
    folder = Path("results/runs") / name
    (folder / "adapter").mkdir()
    files.write_json(folder / "provenance.json", {"config_hash": run.hash})
    before = (folder / "run.yaml").read_bytes()
    other = make_plan(check_main({**MAIN, "training": {"iterations": 4}}))
    with pytest.raises(ConfigError, match=f"{name} was trained with other settings"):
        other.write(())
    assert (folder / "run.yaml").read_bytes() == before
    other.write({name})  # a job trains it again
    assert (folder / "run.yaml").read_bytes() != before


def saved(folder: Path, *iterations: int) -> Path:
    for iteration in iterations:
        checkpoint.save(
            folder, iteration, {"x": torch.full((3,), float(iteration))}, {"iteration": iteration}
        )
    return folder


@pytest.mark.parametrize("harm", ["flip", "truncate", "number", "half", "gone"])
def test_a_damaged_checkpoint_is_said_and_the_one_before_is_taken(tmp_path, capsys, harm):
    folder = saved(tmp_path / "checkpoint", 2, 4, 6)
    assert sorted(p.name for p in folder.iterdir()) == ["iteration_000004", "iteration_000006"]
    newest = folder / "iteration_000006"
    tensors, numbers = newest / "state.safetensors", newest / "state.json"
    content = bytearray(tensors.read_bytes())
    if harm == "flip":
        content[-1] ^= 1
        tensors.write_bytes(content)
    elif harm == "truncate":
        tensors.write_bytes(content[:-4])
    elif harm == "number":
        numbers.write_text(numbers.read_text().replace('"iteration": 6', '"iteration": 7'))
    elif harm == "half":
        numbers.write_text(numbers.read_text()[:20])
    else:
        tensors.unlink()
    found, stored = checkpoint.load_latest(folder)
    assert stored == {"iteration": 4} and found["x"][0] == 4
    assert f"{newest}" in capsys.readouterr().err
    shutil.rmtree(folder / "iteration_000004")
    with pytest.raises(ValueError, match=f"no checkpoint in {folder} is whole: delete the folder"):
        checkpoint.load_latest(folder)


def test_an_adapter_that_is_not_the_runs_own_is_named(tmp_path):
    adapter = tmp_path / "adapter" / provenance.ADAPTER_FILE
    files.write_text(adapter, "weights")
    files.write_text(tmp_path / "history.parquet", "numbers")
    files.write_json(tmp_path / "provenance.json", {"files": provenance.digests(tmp_path)})
    provenance.check_file(tmp_path, adapter)
    adapter.write_text("Weights")
    with pytest.raises(tables.DamagedFile, match=f"{adapter} is damaged .*delete it and start again"):
        provenance.check_file(tmp_path, adapter)


def test_a_flipped_byte_of_a_table_or_of_images_is_found(tmp_path):
    path = tmp_path / "x.parquet"
    tables.write_table(pd.DataFrame({"value": np.arange(5000.0)}), path)
    assert len(tables.read_table(path)) == 5000
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    drawn = tmp_path / "images.parquet"
    images.write(drawn, pixels, k=1, suite="x", step=0, made_from="x")
    for file, read in ((path, tables.read_table), (drawn, lambda p: list(images.stream(p)))):
        content = bytearray(file.read_bytes())
        content[len(content) // 3] ^= 4
        file.write_bytes(content)
        with pytest.raises(ValueError, match=f"{file} is damaged.*delete it"):
            read(file)


def test_what_a_killed_process_left_is_removed(tmp_path):
    for name in (".adapter.12-ab.tmp", ".state.json.3-cd.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "half").write_text("x")
    (tmp_path / "kept").write_text(json.dumps({}))
    files.remove_leftovers(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / ".ocr_000004.parquet.7-ab.tmp").write_text("x")
    files.remove_leftovers(tmp_path)
    assert list((tmp_path / "below").iterdir())
    files.remove_leftovers(tmp_path, below=True)
    assert not list((tmp_path / "below").iterdir())


def test_lengths_and_layers_are_checked_against_what_is_there(monkeypatch):
    run = {**MAIN, "training": {"iterations": 3, "prompts_per_iteration": 100_000}}
    with pytest.raises(
        ConfigError, match="'prompts_per_iteration' is 100000; .*ocr_train.jsonl holds 1152 prompts"
    ):
        make_plan(check_main(run))
    config = config_files.load_base_model("tiny-sd3")
    assert config_files._unknown_targets(config) == []
    lora = config.lora.model_copy(update={"target_modules": ["attn.to_q", "nope"]})
    assert config_files._unknown_targets(config.model_copy(update={"lora": lora})) == ["nope"]
