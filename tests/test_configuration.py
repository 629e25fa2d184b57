"""Bad input gets one clear message that names the key, the file and what is valid."""

import re
from pathlib import Path

import pytest
import yaml

import methods
from core.settings import ConfigError
from evaluation.configuration import load_evaluation
from methods.maths.latent_size import PAPER_DIMENSIONS
from runs import config_files, resolve

CONFIG = yaml.safe_load(Path("config/config.yaml").read_text())


@pytest.fixture
def config_copy(tmp_path, monkeypatch):
    """A writable copy of ``config/`` that the resolver reads."""
    for path in Path("config").rglob("*.yaml"):
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(path.read_text())
    monkeypatch.setattr(config_files, "CONFIG", tmp_path / "config")
    for function in (config_files.load_base_model, config_files.load_task, config_files.load_method):
        function.cache_clear()
    yield tmp_path / "config"
    for function in (config_files.load_base_model, config_files.load_task, config_files.load_method):
        function.cache_clear()


def edit(path: Path, change) -> None:
    value = yaml.safe_load(path.read_text())
    change(value)
    path.write_text(yaml.safe_dump(value))


def resolve_one(base="tiny-sd3", task="geneval", method="gardo", **config):
    return resolve.resolve_run(base, task, method, 1, config)


@pytest.mark.parametrize("name", ["config", "smoke", "shown", "full", "paper"])
def test_every_preset_resolves(name):
    config = yaml.safe_load(Path(f"config/{name}.yaml").read_text())
    runs = resolve.resolve_grid(config)
    assert all(run.run == key and len(run.hash) == 64 for key, run in runs.items())


KL_THRESHOLDS = {  # likewise; those of DiffusionNFT are of an error of velocities
    "gardo_code_threshold": 3e-4,
    "gardo_official_code": 3e-4,
    "diffusion_nft_gardo_official_code": 0.15,
}
CLIP_RANGES = {  # of the rows that have another than the paper's
    "grpo_eight_steps_wide": 1e-3,
    "grpo_eight_steps_unclipped": 1e3,
    "grpo_guard_two_steps": 2e-6,
    "grpo_guard_eight_steps": 2e-6,
}


@pytest.mark.parametrize("name", [n for n in config_files.method_names() if n != "base"])
def test_thresholds_are_the_papers_and_carried_over_to_the_embedded_models(name):
    """In force at 512 dimensions, a latent of the embedded models, and at the papers' 65,536."""
    threshold = KL_THRESHOLDS.get(name, 0.015 if name.startswith("diffusion_nft") else 1e-4)
    clip = CLIP_RANGES.get(name, 1e-4)
    run = resolve_one(method=name, task="ocr")
    algorithm = methods.get(run.algorithm)
    parameters = algorithm.Config(**run.parameters)
    expected = {
        "clip_range": (clip * 10, clip),
        "kl_threshold": (threshold * 128, threshold),
        "trust_region": (1e-5 * 128, 1e-5),
    }
    small, large = (algorithm(parameters, dimensions).config for dimensions in (512, PAPER_DIMENSIONS))
    for key in expected.keys() & type(parameters).model_fields.keys():
        assert (getattr(small, key), getattr(large, key)) == expected[key], key


def test_what_no_process_can_serve_is_refused_with_its_file(monkeypatch):
    config = methods.get("diffusion_nft").Config
    monkeypatch.setattr(config, "needs", lambda self: methods.Needs(process="forward", data=True))
    with pytest.raises(ConfigError, match=r"methods/diffusion_nft.py.*'forward' cannot serve data = True"):
        resolve_one(method="diffusion_nft")


def test_presets_share_no_run():
    names = [
        set(resolve.resolve_grid(yaml.safe_load(Path(f"config/{n}.yaml").read_text())))
        for n in ("config", "smoke")
    ]
    assert not names[0] & names[1]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"base": "sd9"}, r"unknown base model 'sd9'.*tiny-sd3"),
        ({"task": "chess"}, r"unknown task 'chess'.*counting.*geneval.*ocr"),
        ({"method": "magic"}, r"unknown method 'magic'.*gardo"),
        ({"training": {"iteratons": 3}}, r"unknown key 'iteratons'.*valid keys.*iterations"),
        ({"training": {"learning_rate": -1}}, r"'learning_rate' is -1.*greater than 0"),
        ({"training": {"sde_steps": 8}}, r"'sde_first' \+ 'sde_steps' are 8.*8 denoising steps"),
        ({"method": "crd", "training": {"micro_batch": 8}}, r"'micro_batch' is 8; crd compares 12 images"),
        ({"training": {"forward_steps": 99}}, r"'forward_steps' is 99.*takes 8 denoising steps"),
        ({"training": {"trained_steps": 99}}, r"'trained_steps' is 99.*'sde_steps' is 3"),
    ],
)
def test_unknown_names_and_wrong_values(arguments, message):
    with pytest.raises(ConfigError, match=message):
        resolve_one(**arguments)


def test_a_misspelt_method_parameter(config_copy):
    edit(config_copy / "methods/gardo.yaml", lambda v: v["parameters"].update(gate_shaer=0.2))
    with pytest.raises(ConfigError, match=r"gardo.yaml.*unknown key 'gate_shaer'.*gate_share"):
        resolve_one()


def test_an_unknown_reward(config_copy):
    edit(config_copy / "tasks/geneval.yaml", lambda v: v.update(proxy="genevil"))
    with pytest.raises(ConfigError, match=r"geneval.yaml: key 'proxy'.*'genevil'.*geneval_partial"):
        resolve_one()


def test_a_text_prompt_without_a_quoted_word(config_copy, tmp_path):
    prompts = tmp_path / "p.jsonl"
    prompts.write_text('{"tag": "text", "prompt": "a red sign"}\n')
    edit(config_copy / "tasks/ocr.yaml", lambda v: v.update(prompts=str(prompts)))
    with pytest.raises(ConfigError, match=r"double quotes.*'a red sign'"):
        resolve_one(task="ocr")


def test_an_unknown_metric(tmp_path):
    value = yaml.safe_load(Path("config/evaluation.yaml").read_text())
    value["suites"]["ocr"]["metrics"].append("beauty")
    path = tmp_path / "evaluation.yaml"
    path.write_text(yaml.safe_dump(value))
    with pytest.raises(ConfigError, match=r"suites.ocr.metrics names 'beauty'"):
        load_evaluation(path=path)


def test_a_method_that_needs_data_must_be_given_some(config_copy):
    edit(config_copy / "methods/ddrl_synthetic.yaml", lambda v: v.pop("training"))
    with pytest.raises(ConfigError, match=r"'data' is 'none'"):
        resolve_one(method="ddrl_synthetic")


def test_a_run_that_starts_from_another_follows_its_configuration(config_copy):
    before = resolve_one(method="sft_then_ddrl")
    assert before.start.run == "tiny-sd3__geneval__sft__s1"
    edit(config_copy / "methods" / "sft.yaml", lambda v: v["training"].update(learning_rate=1e-5))
    config_files.load_method.cache_clear()
    after = resolve_one(method="sft_then_ddrl")
    assert after.training == before.training and after.hash != before.hash


def test_a_circle_of_starts(config_copy):
    edit(config_copy / "methods" / "sft.yaml", lambda v: v.update(start_from="sft_then_ddrl"))
    with pytest.raises(ConfigError, match="'start_from' leads in a circle"):
        resolve_one(method="sft_then_ddrl")


def test_a_comment_changes_no_run_and_a_number_changes_one_method(config_copy):
    before = resolve.resolve_grid(CONFIG)
    path = config_copy / "methods/gardo.yaml"
    path.write_text(path.read_text() + "# a remark\n")
    config_files.load_method.cache_clear()
    assert resolve.resolve_grid(CONFIG) == before
    edit(path, lambda v: v["parameters"].update(beta=0.05))
    config_files.load_method.cache_clear()
    after = resolve.resolve_grid(CONFIG)
    extended = {"gardo_random_gate"}  # it extends gardo
    assert {r.method for k, r in after.items() if r != before[k]} == {"gardo", *extended}


@pytest.mark.parametrize("path", sorted(Path("config").glob("*/*.yaml")), ids=lambda p: p.name)
def test_every_number_of_a_method_names_its_origin(path):
    """Paper, upstream or ours, on the line of the number itself."""
    for line in path.read_text().splitlines():
        if re.search(r":\s*[-+\d.e]+\s*(#.*)?$", line) and path.parent.name in ("methods", "tasks"):
            in_table = re.match(r"\s+\w+: [\d.]+$", line) and "tag_weights" in path.read_text()
            trivial = line.strip() in ("iterations: 0",)
            assert re.search(r"# (paper|upstream|ours)", line) or in_table or trivial, line


def test_a_run_depends_on_the_commits_of_its_rewards(config_copy, monkeypatch, tmp_path):
    from rewards.published import hub

    plain = resolve_one(task="ocr")
    edit(config_copy / "tasks/ocr.yaml", lambda task: task.update(auxiliary=["pickscore", "clipscore"]))
    config_files.load_task.cache_clear()
    run = resolve_one(task="ocr")
    assert not any(name.startswith("hub/") for name in plain.weights)
    assert run.weights["hub/yuvalkirstain/PickScore_v1"].startswith("a4e4367")
    monkeypatch.setattr(hub, "PINS", tmp_path / "weights.yaml")
    hub.PINS.write_text(f"yuvalkirstain/PickScore_v1: '{'c' * 40}'\n")
    assert resolve_one(task="ocr").hash != run.hash


def test_an_unknown_encoder_names_file_and_valid_ones(config_copy):
    edit(config_copy / "tasks/ocr.yaml", lambda task: task.update(features="dinov9"))
    config_files.load_task.cache_clear()
    with pytest.raises(ConfigError, match=r"tasks/ocr.yaml: key 'features'.*dinov9.*dinov3, .*scene_encoder"):
        resolve_one(task="ocr")
    with pytest.raises(ConfigError, match="features names 'dinov9'.*dinov3"):
        load_evaluation({"features": "dinov9"})
    with pytest.raises(ConfigError, match="features_by_kind.style names 'gram'.*layout.*style"):
        load_evaluation({"features_by_kind": {"style": "gram"}})
