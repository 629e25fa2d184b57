"""Results that are kept in the repository."""

import json
import re
import shutil
import subprocess
import sys

import pandas as pd
import pytest
from PIL import Image

from core.files import to_yaml, write_text
from core.settings import read_yaml
from reporting.publish import BLOCK, compare, main, publish
from reporting.stored import hashes
from runs.resolve import resolve_grid
from tests.repository_copy import ROOT, copy_repository
from tests.test_stored import finished_run

RUN = "tiny-sd3__ocr__grpo__s901"
PAGE = "before\n<!-- results: main.md, tiny-sd3, trained on OCR -->\nstale\n<!-- end -->\nafter\n"


@pytest.fixture
def results(tmp_path):
    """A rendered grid of one run."""
    folder = tmp_path / "results"
    for name in ("tables", "figures", "gaussian_mixture", "config"):
        (folder / name).mkdir(parents=True)
        (folder / "tables/main.md").write_text("# Title\n")
    (folder / "tables/main.tex").write_text("not copied")
    Image.new("RGB", (40, 30), (10, 200, 30)).save(folder / "figures/pareto.png")
    (folder / "figures/pareto.pdf").write_text("not copied")
    (folder / "gaussian_mixture/table.md").write_text("# Gaussian mixture\n")
    for name in ("claims", "instrument"):
        (folder / f"{name}.md").write_text(f"# {name}\n")
    (folder / "instrument.json").write_text("{}")
    (folder / "claims.json").write_text("[]")
    suite = {"name": "ocr", "prompts": "resources/prompts/ocr_test.jsonl"}
    settings = {"methods": {"grpo": "GRPO"}, "bases": ["tiny-sd3"], "suites": {"ocr": suite}}
    write_text(folder / "config/rendering.yaml", to_yaml(settings))
    run = finished_run(folder / "runs", "grpo", 0.5)
    shutil.copy(run / "scores.parquet", folder)
    shutil.copy(run / "image_scores.parquet", folder)
    write_provenance(folder, dirty=False)
    return folder


def write_provenance(folder, dirty: bool) -> None:
    provenance = {
        "git": {"commit": "0123456789abcdef", "dirty": dirty},
        "hardware": {"processor": "Abacus", "threads": 1, "accelerator": "none"},
        "cpu_seconds": 7200.0,
        "packages": {"torch": "2.13.0"},
    }
    (folder / "runs" / RUN / "provenance.json").write_text(json.dumps(provenance))


LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)\s#]+)")


@pytest.mark.parametrize(
    "page", ["README.md", *(str(p.relative_to(ROOT)) for p in sorted((ROOT / "docs").rglob("*.md")))]
)
def test_every_link_leads_somewhere(page):
    path = ROOT / page
    links = LINK.findall(path.read_text())
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_a_stored_map_stays_until_it_is_made_again(results, tmp_path):
    out = tmp_path / "out"
    (out / "gaussian_mixture_map").mkdir(parents=True)
    (out / "gaussian_mixture_map/table.md").write_text("# stored\n")
    publish(results, out, "a command")
    assert "gaussian_mixture_map/table.md" in (out / "README.md").read_text()
    (results / "gaussian_mixture_map").mkdir()
    (results / "gaussian_mixture_map/table.md").write_text("# new\n")
    publish(results, out, "a command")
    assert (out / "gaussian_mixture_map/table.md").read_text() == "# new\n"


def test_a_judged_mixture_must_be_there(results):
    (results / "claims.json").write_text(json.dumps([{"base": "Gaussian mixture"}]))
    shutil.rmtree(results / "gaussian_mixture")
    with pytest.raises(ValueError, match="gaussian_mixture is gone"):
        publish(results, results.parent / "out", "make publish")


def test_results_are_copied_with_their_origin(results, tmp_path):
    readme, out = tmp_path / "README.md", tmp_path / "kept"
    readme.write_text(PAGE)
    (out / "theorem").mkdir(parents=True)
    (out / "theorem/table.md").write_text("# stays until it is made again\n")
    publish(results, out, "make tables", readme)
    copied = sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file())
    claims, instrument = ([f"{name}.json", f"{name}.md"] for name in ("claims", "instrument"))
    rendered = ["figures/pareto.png", "gaussian_mixture/table.md"]
    raw = [f"raw/{name}.parquet" for name in ("histories", "image_scores", "runs", "scores")]
    assert copied == [
        "README.md",
        *claims,
        *rendered,
        *instrument,
        *raw,
        "tables/main.md",
        "theorem/table.md",
    ]
    histories = pd.read_parquet(out / "raw/histories.parquet")
    assert histories[["run", "method", "value"]].values.tolist() == [[RUN, "grpo", 0.5]] * 2
    page = (out / "README.md").read_text()
    for said in (
        "make tables",
        "012345678",
        "1 runs, 2.0 CPU hours",
        "Abacus",
        "torch 2.13.0",
        "figures/pareto.png",
    ):
        assert said in page
    assert Image.open(out / "figures/pareto.png").convert("RGB").getpixel((3, 3)) == (10, 200, 30)
    assert (
        "| GRPO | 3 | **0.50** [0.50, 0.50] (n=1) |" in readme.read_text()
        and "stale" not in readme.read_text()
    )
    filled = readme.read_text()
    publish(results, out, "make tables", readme)
    assert readme.read_text() == filled  # a second time changes nothing
    readme.write_text(PAGE.replace("trained on OCR", "elsewhere"))
    with pytest.raises(ValueError, match="headed 'tiny-sd3, elsewhere'; valid: tiny-sd3, trained on OCR"):
        publish(results, out, "make tables", readme)


def test_runs_of_uncommitted_code_are_refused(results, tmp_path):
    write_provenance(results, dirty=True)
    with pytest.raises(ValueError, match=f"1 runs were made from code that is not committed, e.g. {RUN}"):
        publish(results, tmp_path / "kept", "make tables")
    assert not (tmp_path / "kept").exists()


def test_what_is_not_rendered_is_named(results, tmp_path):
    (results / "claims.md").unlink()
    with pytest.raises(ValueError, match=r"not rendered yet: .*claims\.md"):
        publish(results, tmp_path / "kept", "make tables")


def test_the_tables_of_the_readme_can_be_filled():
    blocks = [(m["file"], m["heading"]) for m in BLOCK.finditer((ROOT / "README.md").read_text())]
    assert [file for file, _ in blocks] == ["ranking.md"]


def not_stored() -> list[str]:
    """Runs of the published grid that are not in the store with the settings which the grid has now."""
    stored = hashes(ROOT / "docs/results/raw")
    runs = resolve_grid(read_yaml(ROOT / "config/config.yaml") | read_yaml(ROOT / "config/shown.yaml"))
    return [name for name, run in runs.items() if stored.get(name) != run.hash]


def test_every_published_run_is_stored_with_the_settings_that_the_grid_has_now():
    """Else the docs show runs that nobody could make again, and drawing them anew would train."""
    assert not_stored() == []


@pytest.mark.slow
def test_what_is_published_is_drawn_anew_from_its_raw_scores(tmp_path):
    """``make figures-from-published``; figures that show images are left out, for no store holds these."""
    assert not_stored() == []  # else it would train
    folder = copy_repository(tmp_path)
    shutil.copytree(ROOT / "docs", folder / "docs")
    (command,) = re.findall(r"figures-from-published:.*\n\t(.*)", (ROOT / "Makefile").read_text())
    arguments = command.replace("$(BIN)/snakemake --cores $(CORES) ", "").split()
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "2", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "rule train:" not in done.stdout + done.stderr
    found = compare(folder / "results", ROOT / "docs/results")
    assert found["different"] == [] and len(found["equal"]) > 40
    images = ("samples_", "samples_over_training_", "uncertain_", "evaluation_images_")
    assert all(name.removeprefix("figures/").startswith(images) for name in found["not drawn"])


def test_a_table_that_came_out_otherwise_is_named(results, tmp_path, capsys, monkeypatch):
    out = tmp_path / "kept"
    publish(results, out, "make tables")
    assert compare(results, out)["different"] == []
    (results / "tables/main.md").write_text("# Another\n")
    Image.new("RGB", (40, 30), (10, 200, 31)).save(results / "figures/pareto.png")
    arguments = ["publish", "--results", str(results), "--out", str(out), "--compare"]
    monkeypatch.setattr("sys.argv", arguments)
    assert main() == 1
    assert "2 different: figures/pareto.png, tables/main.md" in capsys.readouterr().out
