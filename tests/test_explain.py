"""Every setting of a run with the file that set it."""

import subprocess
import sys
from pathlib import Path

import pytest

from core.files import to_yaml, write_text
from core.settings import read_yaml
from runs.explain import SECTIONS, explain, explain_run
from runs.resolve import resolve_run

MAIN = [Path("config/config.yaml"), Path("config/smoke.yaml")]
RUN = "tiny-sd3__geneval_shortcut_strong__gardo_random_gate__s901"


@pytest.fixture
def smoke():
    return read_yaml("config/config.yaml") | read_yaml("config/smoke.yaml")


@pytest.fixture
def lines(smoke):
    run = resolve_run("tiny-sd3", "geneval_shortcut_strong", "gardo_random_gate", 901, smoke)
    return {line.name: line for line in explain(run, MAIN)}


@pytest.mark.parametrize(
    "name, value, layer, origin",
    [
        ("training.iterations", 3, "config/smoke.yaml", ""),
        ("training.noise_level", 0.7, "config/tasks/geneval.yaml", "upstream: flow_grpo config/grpo.py"),
        ("task_settings.proxy", "geneval_shortcut_strong", "config/tasks/geneval_shortcut_strong.yaml", ""),
        ("parameters.gate_choice", "random", "config/methods/gardo_random_gate.yaml", "ours"),
        ("parameters.beta", 0.04, "config/methods/gardo.yaml", "paper: GARDO Table 1"),
        ("base_model.lora.rank", 32, "config/base_models/tiny-sd3.yaml", "paper: GARDO section 5"),
    ],
)
def test_the_last_file_that_sets_it_is_named_with_its_comment(lines, name, value, layer, origin):
    line = lines[name]
    assert (line.value, line.layer, line.origin) == (value, layer, origin)


def test_a_default_is_said_to_be_one(lines):
    line = lines["parameters.adaptive_reference"]
    assert line.layer.startswith("default of methods/") and "reference stays the base model" in line.origin


def test_every_setting_of_the_run_has_a_line(lines, smoke):
    run = resolve_run("tiny-sd3", "geneval_shortcut_strong", "gardo_random_gate", 901, smoke)
    for section in SECTIONS:
        for key in run.model_dump()[section]:
            assert any(name.startswith(f"{section}.{key}") for name in lines), (section, key)


def test_a_run_made_with_another_value_says_so(smoke, tmp_path):
    run = resolve_run("tiny-sd3", "geneval_shortcut_strong", "gardo_random_gate", 901, smoke)
    old = run.model_copy(update={"parameters": run.parameters | {"beta": 0.5}})
    write_text(tmp_path / "run.yaml", to_yaml(old.model_dump()))
    told = explain_run(RUN, [], smoke, tmp_path)
    assert told.count("the run was made with") == 1 and "^ the run was made with 0.5" in told


def test_a_setting_of_the_grids_row_is_found_there(tmp_path):
    main = tmp_path / "main.yaml"
    rows = "\n".join(
        [
            "- {base: tiny-sd3, task: ocr, methods: [grpo]}",
            "- base: tiny-sd3",
            "  task: ocr",
            "  methods: [gardo]",
            "  parameters:",
            "    beta: 0.07  # upstream: its file",
            "  training: &row",
            "    noise_level: 0.5  # ours: row",
            "- {base: tiny-sd3, task: counting, methods: [gardo], training: {<<: *row}}",
        ]
    )
    main.write_text(f"seeds: [1]\nparameters: {{beta: 0.01}}\ngrid:\n{rows}\n")
    config = read_yaml(main)
    told = explain_run("tiny-sd3__ocr__gardo__s1", [main], config, tmp_path).splitlines()
    assert [line.split()[1:3] for line in told if line.startswith("parameters.beta")] == [["0.07", str(main)]]
    assert any(line.endswith("upstream: its file") for line in told)
    merged = explain_run("tiny-sd3__counting__gardo__s1", [main], config, tmp_path)
    assert "ours: row" in merged and "0.01" in merged


def test_the_command_explains_a_run_or_names_what_is_valid():
    command = [sys.executable, "-m", "runs", "explain", "--configfile", "config/smoke.yaml"]
    done = subprocess.run([*command, RUN], capture_output=True, text=True)
    assert done.returncode == 0 and "config/methods/gardo.yaml" in done.stdout
    done = subprocess.run([*command, "nothing"], capture_output=True, text=True)
    assert done.returncode and "'nothing' is no run; valid: BASE__TASK__METHOD__sSEED" in done.stderr
    assert "Traceback" not in done.stderr
