"""``python -m reporting.publish``: what a finished grid says, copied to where git keeps it.

    snakemake --cores all results/tables results/figures results/claims.md --configfile config/full.yaml
    python -m reporting.publish --command "the line above" --out docs/results --readme README.md

Tables, claims and the instrument's verdicts are copied as they are, figures in fewer colours, with a page
that says which commits, machine and packages they come from. The tables that the README shows stand there
between ``<!-- results: FILE, HEADING -->`` and ``<!-- end -->`` and are replaced. Runs of code that is not
committed are refused: nobody could repeat them.

``raw/`` holds what all of it is drawn from (reporting/stored.py): a grid with
``stored_runs: docs/results/raw`` renders it again without training (``make figures-from-published``), and
``--compare`` says whether it came out the same.
Experiments that depend on no run of the grid stay as they are stored until they are made again.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from PIL import Image

from core.command import run_command
from core.files import replacing, write_text
from reporting import origin, tables
from reporting import stored as store
from reporting.claims import MIXTURE
from reporting.layout import load_layout
from reporting.results import Results, read
from reporting.table_formats import pipe_table

EXPERIMENTS = ("gaussian_mixture", "gaussian_mixture_map", "theorem")  # shown where they were run
JUDGED = ("instrument.md", "instrument.json", "claims.md", "claims.json")
COLOURS = 256  # of a picture: a third of the size
BLOCK = re.compile(r"(<!-- results: (?P<file>\S+), (?P<heading>.+?) -->\n).*?(<!-- end -->)", re.DOTALL)


def block_of(results: Results, table: str, heading: str) -> str:
    """The Markdown of one block of a table of the results, without the papers' rows.

    Raises:
        ValueError: there is no such table, or no block of it is headed so.
    """
    layout = load_layout()
    if table not in layout.tables:
        raise ValueError(f"no table is called {table!r}; valid: {', '.join(layout.tables)}")
    settings = results.settings
    blocks = dict(tables.drawn(results.scores, table, layout, settings.methods, settings.bases))
    if heading not in blocks:
        raise ValueError(f"no block of table {table!r} is headed {heading!r}; valid: {'; '.join(blocks)}")
    return "\n".join(pipe_table(blocks[heading]))


def fill(page: str, results: Results) -> str:
    """The page with every block replaced by its table."""

    def filled(block: re.Match) -> str:
        return f"{block[1]}\n{block_of(results, Path(block['file']).stem, block['heading'])}\n\n{block[4]}"

    return BLOCK.sub(filled, page)


def summary(command: str, provenances: dict[str, dict[str, Any]], out: Path) -> str:
    """The page that stands beside the copies."""
    first = next(iter(provenances.values()))
    machines = [
        "{processor}, {threads} thread(s) a job, accelerator {accelerator}".format(**p["hardware"])
        for p in provenances.values()
    ]
    hours = sum(p["cpu_seconds"] for p in provenances.values()) / 3600
    packages = ", ".join(f"{name} {version}" for name, version in first["packages"].items())
    tables = ", ".join(f"[{p.stem}](tables/{p.name})" for p in sorted((out / "tables").glob("*.md")))
    lines = [
        "# Results",
        "",
        "Made by",
        "",
        f"    {command}",
        "",
        "and copied here by `python -m reporting.publish`. [Findings](../findings.md) says what they mean.",
        "",
        f"- {origin.sentence(provenances)}",
        f"- {len(provenances)} runs, {hours:.1f} CPU hours of training.",
        f"- {'; '.join(sorted(set(machines)))}.",
        f"- {packages}.",
        "",
        "What the suite can judge, by its controls: [instrument.md](instrument.md).",
        "",
        "Claims of the papers with computed verdicts: [claims.md](claims.md).",
        "",
        f"Tables: {tables}.",
    ]
    for experiment in EXPERIMENTS:
        for table in sorted((out / experiment).glob("*.md")):
            title = experiment.replace("_", " ").capitalize()
            lines += ["", f"{title}: [{table.stem}]({experiment}/{table.name})."]
    for picture in sorted(out.glob("*/*.png")):
        title = str(picture.relative_to(out).with_suffix("")).removeprefix("figures/")
        title = title.replace("_", " ").replace("/", ", ")
        lines += ["", f"## {title}", "", f"![{title}]({picture.relative_to(out)})"]
    return "\n".join(lines) + "\n"


def publish(results: Path, out: Path, command: str, readme: Path | None = None) -> None:
    """Copy the rendered results to ``out`` and fill the tables of ``readme``.

    Raises:
        ValueError: something is not rendered yet, or runs were made from code that is not committed.
    """
    wanted = [
        results / name for name in ("tables", "figures", *JUDGED, "scores.parquet", "image_scores.parquet")
    ]
    missing = [str(path) for path in wanted if not path.exists()]
    if missing:
        raise ValueError(f"not rendered yet: {', '.join(missing)}")
    judged = json.loads((results / "claims.json").read_text())
    if any(entry["base"] == MIXTURE for entry in judged) and not list(
        results.glob("gaussian_mixture*/table.md")
    ):
        raise ValueError("the claims judge the Gaussian mixture, and results/gaussian_mixture is gone")
    stored = read(
        results / "scores.parquet", results / "config/rendering.yaml", results / "image_scores.parquet"
    )
    provenances = stored.provenance
    dirty = [run for run, provenance in provenances.items() if origin.is_dirty(provenance)]
    if dirty:
        raise ValueError(f"{len(dirty)} runs were made from code that is not committed, e.g. {dirty[0]}")
    with replacing(out) as temporary:
        for folder in ("tables", "figures", *(e for e in EXPERIMENTS if (results / e).exists())):
            (temporary / folder).mkdir(parents=True)
            for path in sorted((results / folder).glob("*")):
                if path.suffix in (".md", ".csv"):
                    shutil.copy(path, temporary / folder)
                elif path.suffix == ".png":
                    in_few_colours(path).save(temporary / folder / path.name, optimize=True)
        for name in EXPERIMENTS:
            if (out / name).exists() and not (temporary / name).exists():
                shutil.copytree(out / name, temporary / name)
        for name in JUDGED:
            shutil.copy(results / name, temporary)
        store.keep([results / "runs" / run for run in provenances], temporary / "raw")
        write_text(temporary / "README.md", summary(command, provenances, temporary))
    if readme:
        write_text(readme, fill(readme.read_text(), stored))


def in_few_colours(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)


def compare(results: Path, out: Path) -> dict[str, list[str]]:
    """Published tables, verdicts and figures by what became of them when they were drawn anew.

    "equal": tables byte for byte, figures pixel for pixel; "different"; "not drawn": figures that show
    images, which no store holds.
    """
    found: dict[str, list[str]] = {"equal": [], "different": [], "not drawn": []}
    drawn = [path for folder in ("tables", "figures") for path in (out / folder).glob("*")]
    for path in sorted([*drawn, *map(out.joinpath, JUDGED)]):
        new = results / path.relative_to(out)
        if not new.exists():
            what = "not drawn"
        elif path.suffix == ".png":
            with Image.open(path) as kept:
                same = kept.convert("RGB").tobytes() == in_few_colours(new).convert("RGB").tobytes()
            what = "equal" if same else "different"
        else:
            what = "equal" if path.read_bytes() == new.read_bytes() else "different"
        found[what].append(str(path.relative_to(out)))
    return found


def _compare(arguments) -> None:
    found = compare(arguments.results, arguments.out)
    for what, names in found.items():
        print(f"{len(names)} {what}{': ' + ', '.join(names) if names and what != 'equal' else ''}")
    if found["different"]:
        raise ValueError(f"{len(found['different'])} files of {arguments.out} are not what was drawn anew")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m reporting.publish", description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--readme", type=Path, help="page whose tables are filled")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--command", help="what made the results, for the page beside them")
    what.add_argument("--compare", action="store_true", help="write nothing: is it what --out holds?")
    parser.set_defaults(
        call=lambda a: _compare(a) if a.compare else publish(a.results, a.out, a.command, a.readme)
    )
    return run_command(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
