"""Tables against golden files and, with the real configuration, structurally.

After an intended change of the drawing: ``python -m tests.test_tables`` rewrites the golden files.
"""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from evaluation.scores import COLUMNS, ROLES, Images, Scores
from reporting.layout import Layout, Published, load_layout, load_published, match
from reporting.table_formats import Text, decimal, escape_tex, latex, markdown, numbers, pipe_table
from reporting.tables import NoRows, drawn, render

GOLDEN = Path(__file__).parent / "golden_tables"
LABELS = {"base": "untrained", "plain": "Plain β=0 & co_1", "gated": "Gated 100%", "late": "Late"}
LAYOUT = Layout(
    **{
        "base_method": "base",
        "tasks": {"ocr": "OCR"},
        "roles": {
            "proxy": {"mark": " (proxy)", "legend": "(proxy): trained on"},
            "auxiliary": {"mark": "†", "legend": "†: auxiliary"},
            "unseen": {"mark": "", "legend": "no mark: unseen"},
            "gold": {"mark": "‡", "legend": "‡: gold"},
            "diversity": {"mark": ""},
            "diversity_kind": {"mark": ""},
            "cost": {"mark": ""},
        },
        "columns": {
            "ocr": dict(header="OCR", metric="ocr", suite="ocr", digits=2, better="higher", published="OCR"),
            "look": dict(
                header="look", metric="look", suite="own", digits=2, better="higher", published="Aes"
            ),
            "gold": dict(header="gold", metric="gold", suite="own", digits=2, better="higher"),
            "diversity": dict(
                header="diversity ×100", metric="diversity", suite="own", digits=1, scale=100, better="higher"
            ),
            "never": dict(header="never", metric="no", suite="own", digits=2, better="higher", optional=True),
            "wall": dict(header="wall (s)", metric="wall", suite="training", digits=0, better="lower"),
            "images": dict(header="images", metric="images", suite="training", digits=0, better="neither"),
            "each": dict(
                header="ms",
                metric="wall",
                per="images",
                scale=1000,
                suite="training",
                digits=1,
                better="lower",
            ),
            "ratio": dict(
                header="× plain",
                metric="wall",
                relative_to="plain",
                suite="training",
                digits=2,
                better="lower",
            ),
        },
        "tables": {
            "main": dict(
                title="Small_world",
                bases="first",
                tasks=["ocr", "geneval"],
                methods=["*", "!late"],
                columns=["ocr", "look", "gold", "diversity", "never"],
                published=["paper"],
            ),
            "cost": dict(
                title="Cost",
                bases="all",
                tasks=["ocr"],
                methods=["*"],
                columns=["wall", "images", "each", "ratio"],
                published=[],
            ),
            "second_base": dict(
                title="Second base",
                bases="others",
                tasks=["ocr", "geneval"],
                methods=["*", "!late"],
                columns=["ocr", "look", "gold", "diversity", "never"],
                published=[],
            ),
            "late": dict(
                title="Late",
                bases="first",
                tasks=["ocr"],
                methods=["base", "plain", "late"],
                subject=["late"],
                columns=["gold"],
                published=[],
            ),
        },
    }
)
PUBLISHED = {
    "paper": Published(
        **{
            "note": "Published: A (arXiv 0000.00000), Table 1.",
            "columns": ["OCR", "Aes"],
            "digits": [2, 1],
            "rows": {
                "ocr": [
                    {"label": "P β=0", "method": "plain", "step": 600, "values": [0.9, 4.0]},
                    {"label": "hidden", "method": "gated", "step": 9, "shown": False, "values": [0.1, 1.0]},
                ]
            },
        }
    )
}


def small_scores() -> pd.DataFrame:
    """Two tasks, three methods; ties, a run with one seed, a deviating role and an early step."""
    rows = []

    def add(task, method, seed, step, suite, metric, role, value, n=64):
        rows.append(
            (f"b__{task}__{method}__s{seed}", "b", task, method, seed)
            + (step, suite, suite == task, metric, role, value, n)
        )

    for seed in (0, 1, 2):
        for method, ocr, gold, diversity in (
            ("base", 0.9, 0.5, 0.2),
            ("plain", 0.8, 0.3, 0.1),
            ("gated", 0.8, 0.6, 0.2),
        ):
            step = 0 if method == "base" else 20
            add("ocr", method, seed, step, "ocr", "ocr", "proxy", ocr + 0.02 * (seed - 1))
            look = "proxy" if method == "gated" else "auxiliary"
            add("ocr", method, seed, step, "ocr", "look", look, -1.0 - gold + 0.1 * seed)
            add("ocr", method, seed, step, "ocr", "gold", "gold", gold + 0.01 * seed)
            add("ocr", method, seed, step, "ocr", "diversity", "diversity", diversity)
            if method != "base":
                add("ocr", method, seed, 10, "ocr", "ocr", "proxy", 0.123)  # not the last step
                add(
                    "ocr",
                    method,
                    seed,
                    20,
                    "training",
                    "wall",
                    "cost",
                    100.0 * (2 - (method == "plain")) + seed,
                    0,
                )
                add("ocr", method, seed, 20, "training", "images", "cost", 4000.0, 0)
    add("geneval", "gated", 0, 20, "geneval", "gold", "gold", 0.75, 32)
    add("geneval", "gated", 0, 20, "ocr", "ocr", "unseen", -0.001, 32)
    return pd.DataFrame(rows, columns=COLUMNS)


def two_bases() -> pd.DataFrame:
    """The small scores, and once more on a second base model with other values."""
    scores = small_scores()
    second = scores.assign(base="c", run=scores["run"].str.replace("b__", "c__"), value=scores["value"] * 0.8)
    return pd.concat([scores, second])


def golden(out) -> dict[str, str]:
    """What the golden files hold: the tables of one base model, and the one that needs a second."""
    second = {k: v for k, v in draw(out, two_bases()).items() if k.startswith("second_base")}
    return draw(out) | second


def draw(out, scores=None, **options) -> dict[str, str]:
    scores = small_scores() if scores is None else scores
    scores = scores if isinstance(scores, Scores) else Scores(scores)
    paths = render(scores, LAYOUT, LABELS, PUBLISHED, out, version="Commit abc1234 (dirty).", **options)
    return {p.name: p.read_text(encoding="utf-8") for p in paths}


def test_tables_equal_the_golden_files(tmp_path):
    files = golden(tmp_path)
    assert sorted(files) == sorted(p.name for p in GOLDEN.iterdir())
    for name, text in files.items():
        assert text == (GOLDEN / name).read_text(encoding="utf-8"), name


def test_order_of_rows_changes_nothing_and_a_score_does(tmp_path):
    drawn, scores = draw(tmp_path), small_scores()
    assert draw(tmp_path, scores.sample(frac=1.0, random_state=0)) == drawn
    last = (scores["method"] == "plain") & (scores["metric"] == "gold") & (scores["seed"] == 2)
    changed = draw(tmp_path, scores.assign(value=scores["value"] + 0.05 * last))
    assert all(changed[f"main.{kind}"] != drawn[f"main.{kind}"] for kind in ("md", "csv", "tex"))
    early = scores["step"] == 10
    assert draw(tmp_path, scores.assign(value=scores["value"] + 5.0 * early)) == drawn


def block(markdown_text: str, title: str) -> list[list[str]]:
    lines = markdown_text.split(f"**{title}**\n\n")[1].split("\n\n")[0].splitlines()
    return [[c.strip() for c in line.strip("|").split("|")] for line in lines if not line.startswith("|---")]


def test_headers_bold_and_marks(tmp_path):
    text = draw(tmp_path)["main.md"]
    ocr, geneval = block(text, "b, trained on OCR"), block(text, "b, trained on geneval")
    assert ocr[0] == ["method", "step", "OCR (proxy) ↑", "look† ↑", "gold‡ ↑", "diversity ×100 ↑"]
    assert geneval[0][2] == "OCR ↑"  # the same metric, unseen here
    assert [r[0] for r in ocr[1:]] == ["untrained", "Plain β=0 & co_1", "*P β=0*", "Gated 100%"]
    untrained, plain, paper, gated = ocr[1:]
    assert untrained[2] == "0.90 [0.88, 0.92]"  # the best mean, but the base row is never bold,
    assert untrained[5] == "20.0 [20.0, 20.0]" and gated[5].startswith("**20.0**")  # nor when it ties
    assert plain[2].startswith("**0.80**") and gated[2].startswith("**0.80**")  # a tie
    assert "**" not in plain[4] and gated[4].startswith("**0.61** [")
    assert gated[3].startswith("−1.50 proxy [") and paper[2:] == ["*0.90*", "*4.0*", "*–*", "*–*"]
    assert "a role named in a cell" in text and "hidden" not in text
    assert geneval[1][2:] == ["**0.00** (n=1)", "–", "**0.75** (n=1)", "–"]
    assert "Seeds: 1–3." in text and "metric: 32–64." in text and "run: 20." in text and "abc1234" in text


def test_costs_are_derived_per_run(tmp_path):
    draw(tmp_path)
    cost = pd.read_csv(tmp_path / "cost.csv").set_index(["method", "column"])
    assert cost.loc[("plain", "each"), "mean"] == pytest.approx(1000 * 101 / 4000)
    assert cost.loc[("plain", "ratio"), "mean"] == pytest.approx(1.0)
    assert cost.loc[("gated", "ratio"), "mean"] == pytest.approx(201 / 101, rel=1e-4)
    assert "base" not in cost.index.get_level_values("method")
    scores = small_scores()
    alone = draw(tmp_path, scores[scores["method"] == "gated"])["cost.md"]
    assert block(alone, "b, trained on OCR")[1][-1] == "–"  # nothing to relate to


def test_csv_is_long_and_complete(tmp_path):
    draw(tmp_path)
    main = pd.read_csv(tmp_path / "main.csv")
    names = "base task method label step column metric suite role mean low high seeds published"
    assert list(main.columns) == names.split()
    assert len(main) == 4 * (3 + 1)
    plain = main[(main["method"] == "plain") & (main["column"] == "look")].iloc[0]
    assert (plain["suite"], plain["role"], plain["seeds"], plain["published"]) == ("ocr", "auxiliary", 3, 4.0)
    unmeasured = main[(main["task"] == "geneval") & (main["column"] == "look")].iloc[0]
    assert unmeasured["seeds"] == 0 and pd.isna(unmeasured["mean"]) and pd.isna(unmeasured["role"])


def test_a_requested_table_without_rows_says_what_is_missing(tmp_path):
    assert not any(name.startswith(("second_base", "late")) for name in draw(tmp_path))
    with pytest.raises(NoRows, match=r"'second_base'.*any other than \['b'\].*'ocr'.*plain"):
        draw(tmp_path, requested=["second_base"])
    with pytest.raises(NoRows, match=r"'late'.*base: \['b'\].*methods: \['late'\]"):
        draw(tmp_path, requested=["late"])
    with pytest.raises(ValueError, match="unknown tables.*nosuch"):
        draw(tmp_path, requested=["nosuch"])
    with pytest.raises(ValueError, match="without a label.*stranger"):
        draw(tmp_path, small_scores().replace({"method": {"gated": "stranger"}}))


def test_bases_are_first_or_others(tmp_path):
    main, second = (draw(tmp_path, two_bases())[f"{name}.md"] for name in ("main", "second_base"))
    assert "**c, trained" not in main and "**b, trained" not in second
    assert block(second, "c, trained on OCR")[0] == block(main, "b, trained on OCR")[0]  # the same columns
    assert "**b, trained" in draw(tmp_path, two_bases(), bases=["c", "b"])["second_base.md"]


def check_tex(text: str) -> None:
    """What LaTeX would refuse: unbalanced braces or environments, bare specials, uneven rows."""
    bare = re.sub(r"\\[\\{}&%$#_]", "", text)
    assert bare.count("{") == bare.count("}")
    for name in ("table*", "tabular"):
        assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") == 1
    assert text.index(r"\toprule") < text.index(r"\midrule") < text.index(r"\bottomrule")
    assert text.isascii(), sorted({c for c in text if ord(c) > 127})
    body = text.split(r"\toprule")[1].split(r"\bottomrule")[0]
    rows = [line for line in body.splitlines() if line.endswith(r" \\") and r"\multicolumn" not in line]
    cells = len(re.search(r"\\begin\{tabular\}\{(l+r+)\}", text)[1])
    assert rows and all(len(re.findall(r"(?<!\\)&", row)) == cells - 1 for row in rows)
    assert not re.search(r"(?<!\\)[%#]", text)
    assert not re.search(r"(?<!\\)_", re.sub(r"\\label\{tab:\w+\}", "", text))
    assert bare.count("$") % 2 == 0


def test_tex_is_escaped_and_balanced(tmp_path):
    drawn = draw(tmp_path)
    check_tex(drawn["main.tex"])
    assert r"Plain $\beta$=0 \& co\_1" in drawn["main.tex"] and r"Gated 100\%" in drawn["main.tex"]
    assert r"\textbf{0.61} {\tiny {[}0.60, 0.62]}" in drawn["main.tex"]
    assert r"look$\dagger$ $\uparrow$" in drawn["main.tex"] and r"\textit{4.0}" in drawn["main.tex"]
    assert escape_tex("\\~^#{}") == r"\textbackslash{}\textasciitilde{}\textasciicircum{}\#\{\}"
    with pytest.raises(ValueError, match="no LaTeX form"):
        escape_tex("→ 模")
    with pytest.raises(AssertionError):
        check_tex(latex("t", [("b", [[Text("a"), Text("b"), Text("c")], [Text("d")]])], [], "x"))


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs pdflatex (Debian: texlive-latex-recommended)")
def test_tex_compiles_with_booktabs_alone(tmp_path):
    parts = [path.read_text() for path in sorted(GOLDEN.glob("*.tex"))]
    body = r"\documentclass{article}\usepackage{booktabs}\begin{document}" + "\n".join(parts)
    (tmp_path / "all.tex").write_text(body + r"\end{document}")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and (tmp_path / "all.pdf").exists(), done.stdout[-2000:]


def test_html_holds_the_same_cells_and_escapes_them(tmp_path):
    drawn = draw(tmp_path)["main.html"]
    assert "<th>OCR (proxy) ↑</th>" in drawn and "Plain β=0 &amp; co_1" in drawn
    assert "<strong>0.61</strong><small> [0.60, 0.62]</small>" in drawn
    assert not re.search(r"(src|href)=|https?://|<script", drawn)  # nothing is fetched


def test_small_helpers():
    names = ["base", "a", "a_x", "b"]
    assert match(["b", "*", "!a_*"], names) == ["b", "base", "a"]
    assert (numbers([3, 1, 2]), numbers([4.0, 4]), numbers([])) == ("1–3", "4", "–")
    assert (decimal(-0.001, 2), decimal(-1.5, 1), decimal(2, 0)) == ("0.00", "−1.5", "2")
    assert r"a\|b\*" in markdown("t", [("b", [[Text("a|b*")]])], [])


def test_published_numbers_are_whole():
    published = load_published()
    for source in published.values():
        rows = [row for rows in source.rows.values() for row in rows]
        assert rows and source.arxiv and "not the same quantity" in source.note
        assert all(len(r.values) == len(source.columns) == len(source.digits) for r in rows)
        for task, of_task in source.rows.items():
            shown = [r.method for r in of_task if r.method and r.shown]
            assert len(shown) == len(set(shown)), f"two shown rows of one method in {task}"
    known = {c for s in published.values() for c in s.columns}
    assert {c.published for c in load_layout().columns.values() if c.published} <= known
    gardo = published["gardo_table_1"].rows["geneval"][-1]
    assert (gardo.method, gardo.step, gardo.values[-1]) == ("gardo", 2000, 24.95)


def test_the_real_configuration_draws_every_table(tmp_path):
    """On tasks whose own suite is named otherwise, as those of the papers are."""
    layout, published = load_layout(), load_published()
    methods = [
        "base",
        "grpo",
        "gardo",
        "gardo_no_gate",
        "ddrl_synthetic",
        "diffusion_nft",
        "crd",
        "flow_dppo",
    ]
    labels = {m: m for m in methods}
    rows = []
    for base in ("one", "two"):
        for task in layout.tasks:
            for method in labels:
                for i, column in enumerate(layout.columns.values()):
                    own = column.suite == "own"
                    suite = f"suite of {task}" if own else column.suite
                    role = "cost" if suite == "training" else "unseen"
                    key = (f"{base}{task}{method}", base, task, method, 0, 5, suite, own)
                    rows.append((*key, column.metric, role, 0.1 * i, 8))
    metric = COLUMNS.index("metric")
    images = [
        (*r[:metric], "images_generated", "cost", 100.0, 0) for r in rows if r[metric] == "train_wall_seconds"
    ]
    rows = [r for r in rows if r[metric] != "images_generated"] + images
    scores = pd.DataFrame(rows, columns=COLUMNS).drop_duplicates(COLUMNS[:-2])
    tables = list(layout.tables)
    paths = render(Scores(scores), layout, labels, published, tmp_path, requested=tables)
    assert len(paths) == 4 * len(tables)
    for table in tables:
        check_tex((tmp_path / f"{table}.tex").read_text(encoding="utf-8"))
    main = (tmp_path / "main.md").read_text(encoding="utf-8")
    assert "*GARDO β=0.04* | *2000*" in main and "*GARDO β=0.04* | *600*" in main
    assert "1400" not in main.split("OCR, 1400 gradient steps")[0]  # a row that is not shown
    assert "preference ViT = PickScore" in main and "SD3.5-Medium at 512 px" in main
    of_own = pd.read_csv(tmp_path / "main.csv").query("column == 'gold'")
    assert of_own["mean"].notna().all() and (of_own["suite"] == "suite of " + of_own["task"]).all()


def images_of(scores: pd.DataFrame, metric: str, spread: float) -> dict:
    """Two prompts of two images of every run, around its score."""
    rows = scores[scores["metric"] == metric]
    return {
        key: Images(np.arange(2), np.array([[v - spread] * 2, [v + spread] * 2]))
        for *key, v in rows[["run", "step", "suite", "metric", "value"]].itertuples(index=False, name=None)
        for key in [tuple(key)]
    }


def one_column(**column) -> Layout:
    """A layout with a table of one column."""
    whole = {"header": "c", "metric": "gold", "suite": "own", "digits": 2, "better": "higher", **column}
    table = {"title": "T", "bases": "all", "tasks": ["ocr"], "methods": ["*"], "columns": ["c"]}
    roles = dict.fromkeys(ROLES, {"mark": ""})
    return Layout(base_method="base", tasks={}, roles=roles, columns={"c": whole}, tables={"t": table})


@pytest.mark.parametrize(
    "column, plain, gated",
    [
        ({}, 0.31, 0.61),
        ({"scale": 10, "over": 4}, 0.775, 1.525),
        ({"per": "diversity"}, 3.1, 3.05),
        ({"relative_to": "plain"}, 1.0, 0.61 / 0.31),
    ],
)
@pytest.mark.parametrize("spread", [None, 0.2])
def test_units_hold_with_and_without_single_images(tmp_path, column, plain, gated, spread):
    """One function gives a table's values, so scores of single images change intervals and no mean."""
    scores = small_scores()
    images = {} if spread is None else images_of(scores, "gold", spread)
    render(Scores(scores, images), one_column(**column), LABELS, {}, tmp_path)
    table = pd.read_csv(tmp_path / "t.csv").set_index("method")
    assert table.loc["plain", "mean"] == pytest.approx(plain, rel=1e-5)
    assert table.loc["gated", "mean"] == pytest.approx(gated, rel=1e-5)
    if spread:
        wider = table["high"] - table["low"]
        render(Scores(scores), one_column(**column), LABELS, {}, tmp_path)
        alone = pd.read_csv(tmp_path / "t.csv").set_index("method")
        assert (wider > (alone["high"] - alone["low"])).all()


def test_a_table_can_be_drawn_without_the_papers_rows(tmp_path):
    text = draw(tmp_path)["main.md"]
    blocks = drawn(Scores(small_scores()), "main", LAYOUT, LABELS, ["b"])
    assert [title for title, _ in blocks] == ["b, trained on OCR", "b, trained on geneval"]
    for title, lines in blocks:
        table = text.split(f"**{title}**\n\n")[1].split("\n\n")[0].splitlines()
        assert pipe_table(lines) == [line for line in table if not line.startswith("| *P β=0*")]


def test_a_column_that_is_not_declared_is_named():
    with pytest.raises(ValueError, match=r"table 't' names the columns \['nosuch'\]; valid: c"):
        table = one_column().tables["t"].model_dump() | {"columns": ["nosuch"]}
        Layout(**one_column().model_dump() | {"tables": {"t": table}})


def test_a_cost_per_nothing_is_a_dash(tmp_path):
    scores = small_scores()
    nothing = (scores["metric"] == "images") & (scores["method"] == "gated")
    scores.loc[nothing, "value"] = 0.0  # as the base model, which is never rolled out
    draw(tmp_path, scores)
    cost = pd.read_csv(tmp_path / "cost.csv").set_index(["method", "column"])
    assert cost["mean"].notna()[("plain", "each")]
    assert not cost["mean"].notna().get(("gated", "each"), False)


if __name__ == "__main__":
    golden(GOLDEN)
