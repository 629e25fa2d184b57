"""Everything that is rendered, from a small synthetic grid; what is absent is named and nothing fails."""

import json
import pkgutil
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import reporting
from benchmarks.rendering import BASE, write_results
from reporting import answer, figures
from reporting.draw import render_figures
from reporting.gallery import render as render_gallery
from reporting.pages import render_pages
from reporting.report import check_instrument, judge_claims, render_tables
from reporting.results import read

CONFIG = {"seeds": [1, 2], "snapshot_shares": [0.5], "tables": ["main", "ablation", "cost"]}
CONFIG["grid"] = [{"base": BASE, "task": "ocr", "methods": ["base", "grpo", "gardo", "gardo_no_diversity"]}]

NEW_FIGURE = """
from matplotlib.figure import Figure
from reporting.figure_style import NothingToDraw, save

def drawings(grid):
    def bars(stem):
        rows = grid.results.scores.of(metric="reward_calls").table
        figure = Figure()
        figure.subplots().bar(rows["run"], rows["value"])
        return save(figure, stem)

    def never(stem):
        raise NothingToDraw("no run of nobody")

    yield "reward_calls", bars
    yield "never", never
"""
OPENS_MODELS = ("rewards", "diffusers", "onnxruntime", "evaluation.sample", "evaluation.score")


def test_nothing_that_renders_opens_a_model():
    """What reads files alone imports nothing that could; ``evaluation.scores`` is what both share."""
    names = [m.name for m in pkgutil.walk_packages(reporting.__path__, "reporting.")]
    assert len(names) > 30
    names = [name for name in names if not name.endswith("__main__")]
    code = f"import sys; import {', '.join(names)}; print(sorted(set({OPENS_MODELS}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_figure_is_found_by_its_file(stored, tmp_path, monkeypatch):
    (tmp_path / "reward_calls.py").write_text(NEW_FIGURE)
    monkeypatch.setattr(figures, "__path__", [*figures.__path__, str(tmp_path)])
    folder, settings = stored
    render_figures(read(folder / "scores.parquet", settings), tmp_path / "figures")
    assert (tmp_path / "figures/reward_calls.png").exists()
    assert "never: no run of nobody" in (tmp_path / "figures/not_drawn.txt").read_text()


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic")
    return folder, write_results(CONFIG, folder)


def test_everything_is_rendered(stored, tmp_path):
    folder, settings = stored
    results = read(folder / "scores.parquet", settings, folder / "image_scores.parquet")
    check_instrument(results, Path("config/instrument.yaml"), tmp_path / "instrument.md")
    judged = tmp_path / "instrument.json"
    tables = {path.name for path in render_tables(results, tmp_path / "tables", judged)}
    wanted = (
        "ranking",
        "main",
        "ablation",
        "diversity",
        "cost",
        "comparison",
        "cost_runs",
        "matched",
        "turn",
        "selection",
    )
    assert tables == {f"{name}.{kind}" for name in wanted for kind in ("csv", "md", "tex", "html")}
    table = (tmp_path / "tables/main.md").read_text()
    assert (
        "and over the prompts within a seed" in table and "\nInstrument (instrument.md): ocr: not t" in table
    )
    assert "negative control not measured" in (tmp_path / "tables/comparison.md").read_text()
    figures = {path.name for path in render_figures(results, tmp_path / "figures")}
    assert {"kl_and_gate.png", f"uncertain_{BASE}_ocr.pdf", f"evaluation_images_{BASE}_ocr.png"} <= figures
    assert {"proxy_versus_gold.png", f"turn_{BASE}_ocr.pdf"} <= figures
    absent = (tmp_path / "figures/not_drawn.txt").read_text().splitlines()
    assert [line.split(":")[0] for line in absent] == ["counting", "multi_reward"]
    judge_claims(results, Path("config/claims.yaml"), tmp_path / "claims.md", judged)
    entries = {e["id"]: e for e in json.loads((tmp_path / "claims.json").read_text())}
    # Nobody has trained the controls.
    assert entries["G1"]["seeds"] == 2 and entries["G1"]["verdict"] == "not testable here"
    assert entries["G6"]["verdict"] == "by construction" and "missing" not in entries["G6"]
    assert entries["G8"]["missing"] == "no runs of grpo_multi_reward"
    render_pages(results, tmp_path / "pages")
    page = (tmp_path / "pages/configuration.html").read_text()
    assert "GARDO β=0.04" in page and "kl_noise_level" in page and "<script" not in page
    assert f"{BASE}__ocr__gardo__s2" in (tmp_path / "pages/provenance.html").read_text()
    render_gallery(results, tmp_path / "gallery.html")
    assert (tmp_path / "gallery.html").stat().st_size > 100_000
    introduction = Path("workflow/report/workflow.rst")
    written = [tmp_path / name for name in ("claims.json", "figures", "gallery.html")]
    answer.write(results, judged, *written, introduction, tmp_path / "a.rst")
    first = (tmp_path / "a.rst").read_text()
    assert (
        first.count("data:image/png;base64,") == 1
        and "srcdoc=" in first
        and "<b>tiny-sd3, ocr</b>: not testable" in first
    )
    assert "negative control</i> not measured" in first and introduction.read_text() in first
    assert max(map(len, first.splitlines())) < 10_000  # docutils reads no longer line


def test_absent_histories_and_images_are_named(stored, tmp_path):
    folder = tmp_path / "results"
    shutil.copytree(stored[0], folder)
    for run in (folder / "runs").iterdir():
        (run / "history.parquet").unlink()
        shutil.rmtree(run / "images", ignore_errors=True)
    results = read(folder / "scores.parquet", folder / stored[1].name)
    render_figures(results, tmp_path / "figures")
    absent = (tmp_path / "figures/not_drawn.txt").read_text()
    for name in (
        "learning_curves_images",
        f"turn_{BASE}_ocr",
        "proxy_versus_gold",
        "kl_and_gate",
        f"samples_{BASE}_ocr",
        f"uncertain_{BASE}_ocr",
    ):
        assert f"{name}: " in absent
    assert (tmp_path / "figures/pareto.png").exists()
    check_instrument(results, Path("config/instrument.yaml"), tmp_path / "instrument.md")
    judge_claims(results, Path("config/claims.yaml"), tmp_path / "claims.md", tmp_path / "instrument.json")
    entries = {e["id"]: e for e in json.loads((tmp_path / "claims.json").read_text())}
    assert entries["G6"]["verdict"] == "by construction" and "missing" in entries["G6"]
