"""Draws cells as GitHub Markdown and as LaTeX; knows nothing about scores.

A table is a title, blocks of ``(block title, lines of Text)`` whose first line is the header, and a
caption of sentences.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

DASH = "–"
_GREEK = dict(α="alpha", β="beta", γ="gamma", δ="delta", ε="epsilon", η="eta", θ="theta", λ="lambda")
_GREEK |= dict(μ="mu", π="pi", ρ="rho", σ="sigma", τ="tau", Δ="Delta")
_MATHS = {"†": "dagger", "‡": "ddagger", "↑": "uparrow", "↓": "downarrow", "→": "to", "×": "times"}
_MATHS |= {"≥": "geq", "≤": "leq", "±": "pm"}
# "[" is braced because LaTeX reads a bracket after a row's end as that command's argument.
TEX = {"\\": r"\textbackslash{}", "[": "{[}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
TEX |= {"§": r"\S{}", "–": "--", "—": "---", "’": "'", "−": "$-$"} | {c: "\\" + c for c in "&%$#_{}"}
TEX |= {c: f"$\\{name}$" for c, name in (_GREEK | _MATHS).items()}


class Text(NamedTuple):
    """One cell to draw: ``text`` ("bold", "italic" or neither), then a plain, smaller ``tail``."""

    text: str
    style: str = ""
    tail: str = ""


Drawn = Sequence[tuple[str, list[list[Text]]]]


def decimal(value: float, digits: int) -> str:
    """Fixed digits with a true minus sign, and none before a value that rounds to zero."""
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def numbers(values: Iterable[int]) -> str:
    """``125`` or, when the values differ, their range ``100–125``."""
    values = sorted({int(v) for v in values})
    return DASH.join(str(v) for v in dict.fromkeys([values[0], values[-1]])) if values else DASH


def escape_markdown(text: str) -> str:
    return re.sub(r"([|*\\`<])", r"\\\1", text)


def escape_tex(text: str) -> str:
    """Text for LaTeX's body; a character outside Latin-1 that ``TEX`` lacks is an error, not a gap."""
    unknown = sorted({c for c in text if ord(c) > 255 and c not in TEX})
    if unknown:
        raise ValueError(f"no LaTeX form for {unknown} in {text!r}; add it to reporting.table_formats.TEX")
    return "".join(TEX.get(c, c) for c in text)


def pipe_table(lines: list[list[Text]]) -> list[str]:
    """A GitHub Markdown table, the first line being the header."""
    wrap = {"": "{}", "bold": "**{}**", "italic": "*{}*"}
    cells = [
        [(wrap[c.style].format(escape_markdown(c.text)) if c.text else "") + c.tail for c in line]
        for line in lines
    ]
    header, *rows = ["| " + " | ".join(line) + " |" for line in cells]
    return [header, "|---|" + "---:|" * (len(lines[0]) - 1), *rows]


def markdown(title: str, blocks: Drawn, caption: Sequence[str]) -> str:
    """A heading, one pipe table per block (its header holds the roles), the caption as paragraphs."""
    out = [f"# {escape_markdown(title)}", ""]
    for name, lines in blocks:
        out += [f"**{escape_markdown(name)}**", "", *pipe_table(lines), ""]
    return "\n".join(out) + "\n" + "\n\n".join(map(escape_markdown, caption)) + "\n"


def latex(title: str, blocks: Drawn, caption: Sequence[str], label: str) -> str:
    """A table environment that needs booktabs alone; intervals are set smaller to keep it on a page."""
    wrap = {"": "{}", "bold": r"\textbf{{{}}}", "italic": r"\textit{{{}}}"}

    def cell(c: Text) -> str:
        tail = rf" {{\tiny {escape_tex(c.tail.strip())}}}" if c.tail else ""
        return wrap[c.style].format(escape_tex(c.text)) + tail

    width = len(blocks[0][1][0])
    body = []
    for name, lines in blocks:
        header, *rows = [" & ".join(map(cell, line)) + r" \\" for line in lines]
        heading = rf"\multicolumn{{{width}}}{{l}}{{\textbf{{{escape_tex(name)}}}}} \\"
        body += [r"\midrule" if body else r"\toprule", heading, header, r"\midrule", *rows]
    sentences = " ".join(map(escape_tex, [title + ".", *caption]))
    head = [r"\begin{table*}", r"\centering", r"\scriptsize", r"\setlength{\tabcolsep}{2.5pt}"]
    head += [rf"\caption{{{sentences}}}", rf"\label{{tab:{label}}}"]
    tabular = [rf"\begin{{tabular}}{{ll{'r' * (width - 2)}}}", *body, r"\bottomrule", r"\end{tabular}"]
    return "\n".join([*head, *tabular, r"\end{table*}"]) + "\n"
