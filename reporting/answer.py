"""The page on which the report opens: what can be judged, the turn, the ranking, what is not known."""

from __future__ import annotations

import base64
import json
from collections import Counter
from html import escape
from pathlib import Path

from core.files import write_text
from reporting import tables
from reporting.html import table
from reporting.layout import load_layout
from reporting.results import Results

RANKING = ("ranking", "main")  # the first of these tables that has rows
PICTURES = 2  # of the turn, of the first places
KNOWN = ("reproduced", "not reproduced")
WIDTH = "62rem"
# Snakemake's page centres its content, and what is higher than the window would lose its top.
STYLE = """<style>.grow.items-center.h-screen { align-items: flex-start; }
.gallery { width: 100%; height: 90vh; border: 1px solid #ccc; }</style>"""


def picture(path: Path) -> str:
    """Its data in lines: docutils reads none of more than 10,000 characters, and browsers join them."""
    data = base64.encodebytes(path.read_bytes()).decode()
    return f'<img style="max-width: 100%" alt="{escape(path.stem)}" src="data:image/png;base64,{data}">'


def ranking(results: Results) -> str:
    """The small table; empty where neither has rows."""
    settings, layout = results.settings, load_layout()
    for name in RANKING:
        try:
            blocks = tables.drawn(results.scores, name, layout, settings.methods, settings.bases)
        except tables.NoRows:
            continue
        return "\n".join(table(*block) for block in blocks)
    return ""


def standings(instrument: dict) -> list[str]:
    """One line for each base model and task: what can be judged there."""
    return [
        f"<b>{escape(s['base'])}, {escape(s['task'])}</b>: {escape(s['text'])}"
        + (f"<br><small>{escape(s['reason'])}</small>" if s["reason"] else "")
        for s in instrument["standings"]
    ]


def unknown(instrument: dict, claims: list[dict]) -> list[str]:
    """Checks that fail or were not measured, and claims that nothing decides."""
    open_checks = [c for c in instrument["checks"] if c["verdict"] in ("fails", "not measured")]
    found = [
        f"{escape(c['base'])}, {escape(c['task'])}: <i>{escape(c['check'])}</i> {escape(c['verdict'])}"
        + (f" ({escape(c['reason'])})" if c.get("reason") else "")
        for c in open_checks
    ]
    undecided = Counter(c["verdict"] for c in claims if c["verdict"] not in KNOWN)
    for verdict, count in undecided.items():
        names = dict.fromkeys(c["id"] for c in claims if c["verdict"] == verdict)
        found.append(f"{count} verdicts on claims read <i>{escape(verdict)}</i>: {escape(', '.join(names))}")
    return found


def _listed(lines: list[str]) -> str:
    return "<ul>" + "".join(f"<li>{line}</li>" for line in lines) + "</ul>"


def body(results: Results, instrument: dict, claims: list[dict], figures: Path, gallery: Path) -> str:
    """HTML without a page around it."""
    turns = [figures / f"turn_{base}_{task}.png" for base, task in results.places()]
    shown = [picture(path) for path in turns if path.exists()][-PICTURES:]
    decided = Counter(c["verdict"] for c in claims if c["verdict"] in KNOWN)
    told = ", ".join(f"{decided[verdict]} {verdict}" for verdict in KNOWN)
    parts = [
        "<h2>What can be judged</h2>",
        _listed(standings(instrument)),
        *shown,
        ranking(results),
        f"<p>Of the papers' claims: {told}.</p>",
        "<h2>What is not known</h2>",
        _listed(unknown(instrument, claims) or ["Every check passes and every claim is decided."]),
    ]
    # As a file of its own Snakemake would put it into an address, for which browsers have it too long.
    parts += [f'<h2>Images</h2><iframe class="gallery" srcdoc="{escape(gallery.read_text())}"></iframe>']
    return f'{STYLE}<div style="width: {WIDTH}; max-width: 90vw">' + "\n".join(filter(None, parts)) + "</div>"


def write(
    results: Results,
    instrument: Path,
    claims: Path,
    figures: Path,
    gallery: Path,
    introduction: Path,
    out: Path,
) -> None:
    """``out`` (.rst), which Snakemake's report shows first, with ``introduction`` (.rst) below."""
    stored = json.loads(instrument.read_text()), json.loads(claims.read_text())
    html = body(results, *stored, figures, gallery)
    raw = "\n".join(f"   {line}" for line in html.splitlines())
    # Jinja reads the file before docutils does.
    answer = f".. raw:: html\n\n{{% raw %}}\n{raw}\n{{% endraw %}}\n\n"
    write_text(out, answer + introduction.read_text(encoding="utf-8"))
