"""Adapters, checkpoints and images are scored beside the base model and judged by what rose and fell."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from base_models import open_base_model
from base_models.base import ADAPTER_FILE
from checking import __main__ as command
from checking.formats import FormatError, kind_of, load
from checking.judged import Check
from checking.verdict import Line, decide
from core.prompts import read as read_prompts
from core.settings import ConfigError
from core.tables import read_table
from evaluation import images
from runs.config_files import load_base_model
from runs.main_config import check_main
from tests.repository_copy import copy_repository
from workflow.plan import make_plan

TASK = "counting"  # the shortest suite
PROMPTS = "resources/prompts/counting_test.jsonl"
ONE = "transformer_blocks.0.attn.to_q"  # a layer
KEY = f"transformer.{ONE}.lora_A.weight"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    copied = copy_repository(tmp_path_factory.mktemp("checked"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(copied)
        torch.set_num_threads(1)  # as the command does, whose own way works in a new process alone
        patch.setattr("core.command.set_threads", lambda count: None)
        patch.setattr("checking.__main__.set_threads", lambda count: None)
        yield copied


@pytest.fixture(scope="module")
def model(folder):
    opened = open_base_model(load_base_model("tiny-sd3"))
    opened.add_adapter()
    return opened


@pytest.fixture(scope="module")
def adapter(folder, model):
    """In diffusers' format, with random weights that change every image a little."""
    rng = torch.Generator().manual_seed(0)
    for parameter in model.adapter_parameters().values():
        parameter.data = 0.05 * torch.randn(parameter.shape, generator=rng)
    model.save_lora(folder / "mine", model.adapter_parameters())
    return folder / "mine"


def check(*arguments: str, status: int = 0) -> None:
    with pytest.MonkeyPatch.context() as patch:
        given = [*map(str, arguments), "--task", TASK, "--images-per-prompt", "2"]
        patch.setattr("sys.argv", ["checking", *given])
        assert command.main() == status


def report(name: str) -> dict:
    return json.loads(Path(f"results/checks/tiny-sd3__{TASK}__{name}__s1/report.json").read_text())


def scores(name: str) -> dict:
    table = read_table(Path(f"results/runs/tiny-sd3__{TASK}__{name}__s1/scores.parquet"))
    return table.set_index(["suite", "metric"])["value"].to_dict()


def test_an_adapter_is_judged_beside_the_base(adapter, capsys):
    check(adapter, "--name", "mine")
    found = report("mine")
    assert found["kl_from_base"] > 0 and len(found["diffusion_loss"]) == 2
    assert {"gold", "diversity", "accuracy_1_9"} <= {line["metric"] for line in found["metrics"]}
    for line in found["metrics"]:
        assert line["low"] <= line["difference"] <= line["high"]
        assert line["judged"] == pytest.approx(line["base"] + line["difference"])
    said = capsys.readouterr().out
    assert said.startswith(found["verdict"]) and said.rstrip().endswith("report.html")
    page = Path(said.split()[-1]).read_text()
    assert page.count("data:image/png;base64,") == 2 * (12 + 6) and "http" not in page


def test_pefts_format_gives_the_same_scores(adapter, folder):
    """As Flow-GRPO, GARDO and DiffusionNFT save theirs: by ``save_pretrained`` of the wrapped transformer."""
    from peft import LoraConfig, get_peft_model

    fresh = open_base_model(load_base_model("tiny-sd3"))
    lora = fresh.config.lora
    wrapped = get_peft_model(
        fresh.transformer,
        LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=list(lora.target_modules)),
    )
    saved = load_file(adapter / ADAPTER_FILE)
    for key, parameter in wrapped.named_parameters():
        if "lora_" in key:
            name = key.removeprefix("base_model.model.").replace(".default.", ".")
            parameter.data = saved[f"transformer.{name}"].clone()
    wrapped.save_pretrained(folder / "peft")
    assert kind_of(folder / "peft") == "adapter"
    check(folder / "peft", "--name", "peft")
    check(adapter / ADAPTER_FILE, "--name", "file")  # without the folder
    assert scores("peft") == scores("file")
    weights = load_file(folder / "peft" / "adapter_model.safetensors")
    shutil.copytree(folder / "peft", folder / "foreign")
    save_file(
        {k.replace("transformer_blocks", "blocks"): v for k, v in weights.items()},
        folder / "foreign" / "adapter_model.safetensors",
    )
    with pytest.raises(FormatError, match="blocks.*belongs to no layer of tiny SD3's transformer"):
        load(folder / "foreign", folder / "x", fresh)


def test_an_adapter_without_effect_is_said_and_not_scored(adapter, folder, capsys):
    saved = load_file(adapter / ADAPTER_FILE)
    (folder / "none").mkdir()
    zero = {k: torch.zeros_like(v) if "lora_B" in k else v for k, v in saved.items()}
    save_file(zero, folder / "none" / ADAPTER_FILE)
    check(folder / "none", "--name", "none", status=1)
    assert "none has no effect: its change of all" in capsys.readouterr().err
    assert not Path(f"results/runs/tiny-sd3__{TASK}__none__s1/scores.parquet").exists()


def test_images_are_scored_as_they_are(folder):
    check(folder / "mine", "--name", "mine")  # whose images are taken
    path = images.path_of(Path(f"results/runs/tiny-sd3__{TASK}__mine__s1/images"), TASK, 0)
    prompts, brought = read_prompts(Path(PROMPTS)), folder / "brought"
    brought.mkdir()
    lines = []
    for row, pixels in enumerate(images.stream(path)):
        Image.fromarray(pixels).save(brought / f"{row}.png")
        lines.append(json.dumps({"file_name": f"{row}.png", "text": prompts[row // 2]["prompt"]}))
    (brought / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    check(brought, "--name", "brought")
    own = {key: value for key, value in scores("mine").items() if key[0] == TASK}
    assert {key: value for key, value in scores("brought").items() if key[0] == TASK} == own
    found = report("brought")
    assert found["kl_from_base"] is None and found["diffusion_loss"] is None
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(brought / "0.png")
    check(brought, "--name", "larger", status=1)


def test_a_checkpoint_is_judged_without_a_kl(folder):
    shutil.copytree("resources/tiny-sd3", folder / "whole")
    (file,) = (folder / "whole" / "transformer").glob("*.safetensors")
    weights = load_file(file)
    save_file(
        {k: v * 1.02 if "attn.to_q.weight" in k else v for k, v in weights.items()}, file, {"format": "pt"}
    )
    check(folder / "whole", "--name", "whole")
    index = folder / "whole" / "model_index.json"
    known = index.read_text()
    for text in (known.replace("StableDiffusion3Pipeline", "FluxPipeline"), "[]"):
        index.write_text(text)
        check(folder / "whole", "--name", "other", status=1)
    index.write_text(known)
    found = report("whole")
    assert found["kl_from_base"] is None and found["diffusion_loss"][0] != found["diffusion_loss"][1]
    assert any(line["difference"] for line in found["metrics"])


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda path: (path / "x.bin").write_bytes(b"x"), "holds 0 safetensors files; valid: an adapter"),
        (lambda path: (path / ADAPTER_FILE).write_bytes(b"nothing"), "is no safetensors file"),
        (
            lambda path: save_file({"text_encoder.x.lora_A.weight": torch.ones(1)}, path / ADAPTER_FILE),
            "text encoders too",
        ),
        (
            lambda path: save_file({"transformer.nope.lora_A.weight": torch.ones(2, 2)}, path / ADAPTER_FILE),
            "nope.lora_A.weight belongs to no layer of tiny SD3's transformer",
        ),
        (
            lambda path: save_file(
                {f"base_model.model.{ONE}.lora_A.weight": torch.ones(2, 2)}, path / ADAPTER_FILE
            ),
            "lora_A.weight is there and .*lora_B.weight is not",
        ),
        (
            lambda path: save_file(
                {f"base_model.model.{ONE}.lora_{k}.weight": torch.ones(2, 2) for k in "AB"},
                path / ADAPTER_FILE,
            ),
            "adapter_config.json does not exist",
        ),
        (lambda path: save_file({}, path / ADAPTER_FILE), "holds no tensors; valid: an adapter"),
    ],
)
def test_what_is_no_adapter_is_one_error(folder, tmp_path, make, message, capsys):
    make(tmp_path)
    check(tmp_path, "--name", "bad", status=1)
    said = capsys.readouterr().err
    assert len([line for line in said.splitlines() if line.startswith("error: ")]) == 1
    assert re.search(message, said), said


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda w: w | {f"transformer.{ONE}.lora_magnitude_vector": torch.ones(2)}, "is a DoRA"),
        (lambda w: w | {f"transformer.{ONE}.dora_scale": torch.ones(2)}, "is a DoRA"),
        (
            lambda w: w | {f"transformer.{ONE}.lora_B.bias": torch.ones(2)},
            "is no part of a LoRA; valid endings",
        ),
        (
            lambda w: w | {"transformer.transformer_blocks.99.attn.to_q.lora_A.weight": w[KEY].clone()},
            "99.* no layer",
        ),
        (lambda w: w | {"unet.x.lora_A.weight": w[KEY].clone()}, "unet.* no layer"),
        (lambda w: {k: v for k, v in w.items() if k != KEY}, f"is there and {ONE}.lora_A.weight is not"),
        (lambda w: {k.replace("lora_A", "lora_C"): v for k, v in w.items()}, "is no part of a LoRA"),
        (
            lambda w: {"lora_unet_x.lora_down.weight": w[KEY], "lora_unet_x.alpha": w[KEY].clone()},
            "no layer of tiny SD3's transformer; it is named as kohya's trainers do",
        ),
    ],
)
def test_what_would_be_dropped_is_refused(adapter, tmp_path, change, message, capsys):
    """Else the scores would be those of another adapter."""
    save_file(change(load_file(adapter / ADAPTER_FILE)), tmp_path / ADAPTER_FILE)
    check(tmp_path, "--name", "bad", status=1)
    assert re.search(message, capsys.readouterr().err)
    assert not Path(f"results/runs/tiny-sd3__{TASK}__bad__s1").exists()


def test_a_scale_is_that_of_the_file_or_is_given_or_is_said_to_be_assumed(adapter, model, tmp_path, capsys):
    # Alpha is twice the rank in its metadata, which a plain file lacks.
    saved = load_file(adapter / ADAPTER_FILE)
    rank, alpha = model.config.lora.rank, model.config.lora.alpha
    save_file(saved, tmp_path / "plain.safetensors")
    loaded = {
        given: load(tmp_path / "plain.safetensors", tmp_path / "x", model, given)
        for given in (None, float(rank), float(alpha))
    }
    whole = load(adapter, tmp_path / "x", model)
    assert loaded[alpha]["relative_change"] == pytest.approx(whole["relative_change"], rel=1e-5)
    assert loaded[rank]["relative_change"] == pytest.approx(loaded[None]["relative_change"], rel=1e-5)
    assert [loaded[None]["scale_known"], loaded[rank]["scale_known"], whole["scale_known"]] == [0, 1, 1]
    check(tmp_path / "plain.safetensors", "--name", "plain")
    assert "says no scale, so it is applied at alpha = rank" in capsys.readouterr().out
    assert "alpha = rank" in report("plain")["applied"]
    check(adapter, "--alpha", "3", "--name", "twice", status=1)
    assert "says its own scale" in capsys.readouterr().err
    for settings, message in (
        ('{"transformer.r": 8}', "gives no rank and scale"),
        (
            '{"transformer.r": 8, "transformer.use_dora": true}',
            "metadata: key 'use_dora' is True; valid: none",
        ),
    ):
        save_file(saved, tmp_path / "half.safetensors", metadata={"lora_adapter_metadata": settings})
        check(tmp_path / "half.safetensors", "--name", "half", status=1)
        assert message in capsys.readouterr().err


def test_a_name_belongs_to_one_path(adapter, folder, capsys):
    check(adapter, "--name", "mine")
    (folder / "copy").mkdir()
    half = {key: value / 2 for key, value in load_file(adapter / ADAPTER_FILE).items()}
    save_file(half, folder / "copy" / ADAPTER_FILE)
    check(folder / "copy", "--name", "mine", status=1)
    assert "is that of a check of" in capsys.readouterr().err


def test_the_hash_is_of_all_that_a_check_depends_on(folder, tmp_path):
    """Else a verdict would outlive what it was of."""
    peft, pictures = tmp_path / "peft", tmp_path / "pictures"
    peft.mkdir()
    save_file({f"base_model.model.{ONE}.lora_A.weight": torch.ones(2, 2)}, peft / "adapter_model.safetensors")
    (pictures / "below").mkdir(parents=True)
    (pictures / "metadata.jsonl").write_text('{"file_name": "below/0.png", "text": "a red circle"}')
    for path, file in ((peft, peft / "adapter_config.json"), (pictures, pictures / "below" / "0.png")):
        hashes = set()
        for content in ("one", "another"):
            file.write_text(content)
            hashes.add(Check(path, "tiny-sd3", TASK, "mine", 1, 2, "cpu").config().hash)
        assert len(hashes) == 2, file


@pytest.mark.parametrize(
    "keys",
    [
        ["lora_unet_x.lora_down.weight", "lora_unet_x.alpha"],
        ["lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight"],  # its other matrix is absent
    ],
)
def test_what_the_loader_cannot_convert_is_one_error(folder, tmp_path, keys, capsys):
    """FLUX's loader reads the names of several trainers, and fails in its own ways."""
    save_file({key: torch.ones(2, 2) for key in keys}, tmp_path / ADAPTER_FILE)
    check(tmp_path, "--base", "tiny-flux", "--name", "odd", status=1)
    assert "is no adapter of tiny Flux (" in capsys.readouterr().err
    assert not Path(f"results/runs/tiny-flux__{TASK}__odd__s1").exists()


@pytest.mark.parametrize(
    "rows, message",
    [
        (b"", "names no image"),
        ('{"file_name": "x", "text": "y"}'.encode("utf-16"), "is no text in UTF-8"),
        (b'{"file_name": 7, "text": "y"}', "line 1: no JSON object with the texts"),
        (b'{"file_name": "x", "text": ["y"]}', "line 1: no JSON object with the texts"),
    ],
)
def test_images_are_named_by_texts(folder, tmp_path, rows, message, capsys):
    (tmp_path / "metadata.jsonl").write_bytes(rows)
    check(tmp_path, "--name", "pictures", status=1)
    assert message in capsys.readouterr().err


def test_the_name_is_that_of_the_file(tmp_path):
    for name, expected in (("a_b.safetensors", "a-b"), ("My LoRA (v2) é.safetensors", "My-LoRA-v2")):
        (tmp_path / name).touch()
        assert command.default_name(tmp_path / name) == expected
    for name in ("ckpt-0.5", "ckpt-0.7"):  # a folder's name has no suffix
        (tmp_path / name).mkdir()
        assert command.default_name(tmp_path / name) == name


@pytest.mark.parametrize("name, message", [("grpo", "a row of config/methods"), ("a b", "is no name")])
def test_names_are_checked_first(folder, name, message, capsys):
    check("missing", "--name", name, status=1)
    assert message in capsys.readouterr().err


def test_a_base_model_of_other_images_is_refused_before_anything_else(adapter, capsys):
    check(adapter, "--base", "sd3.5-medium", "--name", "large", status=1)
    assert "judges images of 32 pixels a side; sd3.5-medium makes" in capsys.readouterr().err
    grid = [{"base": "sd3.5-medium", "task": TASK, "methods": ["base", "grpo"]}]
    with pytest.raises(ConfigError, match="judges images of 32 pixels a side"):
        make_plan(check_main({"seeds": [1], "grid": grid}))


def test_a_pickle_is_refused(folder, capsys):
    check("adapter.bin", "--name", "pickle", status=1)
    assert "is a pickle, which can run code" in capsys.readouterr().err


def test_tables_take_it_as_a_row(adapter):
    check(adapter, "--name", "mine")
    run = f"tiny-sd3__{TASK}__mine__s1"
    grid = [{"base": "tiny-sd3", "task": TASK, "methods": ["base", "grpo"]}]
    plan = make_plan(check_main({"seeds": [1], "grid": grid, "checked": [run]}))
    assert plan.checked == (run,) and "mine" in plan.files["rendering"]
    for names, message in ((["nope"], "valid: .*mine__s1"), ([run], "the grid has no row of tiny-sd3 on")):
        other = [{**grid[0], "task": "ocr"}]
        with pytest.raises(ConfigError, match=message):
            make_plan(check_main({"seeds": [1], "grid": other, "checked": names}))


def line(metric: str, role: str, low: float, high: float, better: str = "higher") -> Line:
    return Line(metric, role, better, 0.0, 0.0, (low + high) / 2, low, high)


@pytest.mark.parametrize(
    "verdict, lines",
    [
        ("no gain", [line("p", "proxy", -0.1, 0.1), line("gold", "gold", -0.2, -0.1)]),
        ("hacked", [line("p", "proxy", 0.1, 0.2), line("gold", "gold", -0.2, -0.1)]),
        ("hacked", [line("p", "proxy", 0.1, 0.2), line("u", "unseen", -0.2, -0.1)]),
        ("inflated", [line("p", "proxy", 0.1, 0.2), line("gold", "gold", -0.1, 0.1)]),
        ("not judged", [line("p", "proxy", 0.1, 0.2), line("d", "diversity", -0.2, -0.1)]),
        ("improved", [line("p", "proxy", 0.1, 0.2), line("gold", "gold", 0.1, 0.2)]),
        (
            "improved at a price",
            [line("p", "proxy", 0.1, 0.2), line("gold", "gold", 0.1, 0.2), line("d", "diversity", -2, -1)],
        ),
        (
            "improved at a price",
            [line("p", "proxy", 0.1, 0.2), line("u", "unseen", 0.1, 0.2), line("v", "unseen", -2, -1)],
        ),
        (
            "improved at a price",
            [
                line("p", "proxy", 0.1, 0.2),
                line("gold", "gold", 0.1, 0.2),
                line("x", "unseen", 0.1, 0.2, "lower"),
            ],
        ),
    ],
)
def test_verdicts_follow_from_what_rose_and_fell(verdict, lines):
    assert decide(lines, "p")[0] == verdict


def test_the_papers_tasks_name_the_config_that_has_their_suites(monkeypatch):
    monkeypatch.setattr(Check, "kind", "adapter")
    arguments = (Path("x"), "sd3.5-medium", "paper_ocr", "mine", 1, None, "cpu")
    with pytest.raises(ConfigError, match="'paper_ocr' is evaluated on drawbench.*--configfile config/paper"):
        Check(*arguments).settings()
    settings = Check(*arguments, Path("config/paper.yaml")).settings()
    assert list(settings.suites) == ["ocr", "geneval", "drawbench"] and settings.features == "dinov3"
