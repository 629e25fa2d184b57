"""Tables as HTML pages that need no other file: no script, no font, no picture from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from reporting.table_formats import DASH, Drawn, Text

STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; color: #222; background: #fff; margin: 1.5em; }
h1 { font-size: 1.3em; } h2 { font-size: 1.05em; margin-top: 1.6em; }
table { border-collapse: collapse; border-top: 2px solid #222; border-bottom: 2px solid #222; }
th { border-bottom: 1px solid #222; font-weight: 600; }
th, td { padding: 0.2em 0.7em; text-align: left; vertical-align: top; }
td.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
small { color: #666; } p { max-width: 60em; } pre { background: #f4f4f4; padding: 0.8em; overflow: auto; }
"""


def page(title: str, *parts: str) -> str:
    """A whole document."""
    head = f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
    return (
        f"{head}<style>{STYLE}</style></head>\n<body><h1>{escape(title)}</h1>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _cell(cell: Text, tag: str) -> str:
    wrap = {"": "{}", "bold": "<strong>{}</strong>", "italic": "<em>{}</em>"}[cell.style]
    text = wrap.format(escape(cell.text)) if cell.text else ""
    tail = f"<small>{escape(cell.tail)}</small>" if cell.tail else ""
    number = tag == "td" and (cell.text[:1].isdigit() or cell.text[:1] in ("−", DASH))
    return f"<{tag}{' class=number' if number else ''}>{text}{tail}</{tag}>"


def table(name: str, lines: list[list[Text]]) -> str:
    """A heading and a table whose first line is the header."""
    rows = [
        "<tr>" + "".join(_cell(cell, "td" if number else "th") for cell in line) + "</tr>"
        for number, line in enumerate(lines)
    ]
    return f"<h2>{escape(name)}</h2>\n<table>\n" + "\n".join(rows) + "\n</table>"


def html(title: str, blocks: Drawn, caption: Sequence[str]) -> str:
    """A page with one table per block and the caption below."""
    paragraphs = [f"<p>{escape(sentence)}</p>" for sentence in caption]
    return page(title, *(table(name, lines) for name, lines in blocks), *paragraphs)
