"""The four files of a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from reporting.html import html
from reporting.table_formats import Drawn, latex, markdown


def write_table(
    out: Path, name: str, title: str, tidy: pd.DataFrame, drawn: Drawn, caption: Sequence[str]
) -> list[Path]:
    """``out/<name>.{csv,md,html,tex}``; ``tidy``: what the .csv holds."""
    texts = {
        "csv": tidy.to_csv(index=False, float_format="%.6g", lineterminator="\n"),
        "md": markdown(title, drawn, caption),
        "html": html(title, drawn, caption),
        "tex": latex(title, drawn, caption, label=name),
    }
    for suffix, text in texts.items():
        (out / f"{name}.{suffix}").write_text(text, encoding="utf-8")
    return [out / f"{name}.{suffix}" for suffix in texts]
