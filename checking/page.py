"""The hacking report: one page that needs no other file, and the same as JSON."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from checking.verdict import CAUTION, LEVEL, MEANING, Judgement, Line, suite_scores
from core.media import film_strip
from evaluation import images
from evaluation.scores import Images
from reporting.html import page, table
from reporting.table_formats import Text, decimal

GAPS, SPREAD = 12, 6  # images shown: those with the largest gap, and some from the whole suite
SHOWN = 96  # pixels of a side on the page, at least
STYLE = """<style>
.verdict { font-size: 1.6em; font-weight: 700; margin: 0.2em 0; }
.hacked { color: #b3261e; } .inflated { color: #9a5b00; } .improved { color: #1b6e3c; }
.pairs { display: flex; flex-wrap: wrap; gap: 1em; } figure { margin: 0; max-width: 15em; }
figure img { image-rendering: pixelated; border: 1px solid #bbb; }
figcaption { font-size: 0.85em; color: #444; }
</style>"""


@dataclass(frozen=True)
class Pair:
    """One image of base and judged from the same noise, with the scores of both by metric."""

    prompt: str
    base: np.ndarray
    judged: np.ndarray
    scores: dict[str, tuple[float, float]]


def gaps(base: dict[str, Images], judged: dict[str, Images], proxy: str, truth: str | None) -> np.ndarray:
    """Prompt and image (n, 2), the largest gap first: how much the proxy rose beyond what ``truth`` did.

    Each is in standard deviations over the base's images. Those on which both are taken.
    """
    prompts = base[proxy].prompts
    if truth:
        prompts = np.intersect1d(prompts, base[truth].prompts)

    def rise(metric: str) -> np.ndarray:
        rows = np.isin(base[metric].prompts, prompts)
        before, after = base[metric].values[rows], judged[metric].values[rows]
        return (after - before) / (before.std() or 1.0)

    gap = rise(proxy) - (rise(truth) if truth else 0.0)
    row, image = np.divmod(np.argsort(-gap, axis=None, kind="stable"), gap.shape[1])
    return np.stack([prompts[row], image], 1)


def picture(pixels: np.ndarray) -> str:
    """An ``img`` with its data."""
    shown, buffer = Image.fromarray(film_strip(pixels)), io.BytesIO()
    shown.save(buffer, "png")
    height = max(SHOWN, min(256, shown.height))
    width = round(shown.width * height / shown.height)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img width="{width}" height="{height}" alt="" src="data:image/png;base64,{data}">'


def pairs(
    base: Path, judged: Path, suite: str, wanted: np.ndarray, prompts: list[dict], metrics: list[str]
) -> list[Pair]:
    """Of these prompts and images (n, 2), in this order."""
    scores = [suite_scores(folder, suite) for folder in (base, judged)]
    ascending, row = np.unique(wanted[:, 0], return_inverse=True)
    pixels = []
    for folder in (base, judged):
        path = images.path_of(folder / "images", suite, 0)
        pixels.append(images.load(path, ascending, images.per_prompt(path))[row, wanted[:, 1]])
    found = []
    for (prompt, image), before, after in zip(wanted.tolist(), *pixels, strict=True):
        values = {m: tuple(_value(of[m], prompt, image) for of in scores) for m in metrics}
        known = {m: pair for m, pair in values.items() if None not in pair}
        found.append(Pair(prompts[prompt]["prompt"], before, after, known))
    return found


def _value(found: Images, prompt: int, image: int) -> float | None:
    """Of one image; None where the metric is not taken on its prompt."""
    row = np.flatnonzero(found.prompts == prompt)
    return float(found.values[row[0], image]) if len(row) else None


def figures(shown: list[Pair]) -> str:
    parts = []
    for pair in shown:
        below = "<br>".join(
            f"{escape(metric)} {decimal(before, 2)} → {decimal(after, 2)}"
            for metric, (before, after) in pair.scores.items()
        )
        caption = f"<figcaption>{escape(pair.prompt)}<br>{below}</figcaption>"
        parts.append(f"<figure>{picture(pair.base)} {picture(pair.judged)}{caption}</figure>")
    return f'<div class="pairs">{"".join(parts)}</div>'


def _texts(*values: str) -> list[Text]:
    return [Text(value) for value in values]


def scores_table(lines: list[Line]) -> str:
    arrows = {"higher": " ↑", "lower": " ↓", "neither": ""}
    rows = [_texts("metric", "role", "base", "checked", "difference", "interval", "")]
    for line in lines:
        interval = f"{decimal(line.low, 3)} to {decimal(line.high, 3)}"
        numbers = decimal(line.base, 3), decimal(line.judged, 3), decimal(line.difference, 3), interval
        rows.append(_texts(line.metric + arrows[line.better], line.role, *numbers, line.change))
    return table("What rose, what fell", rows)


def costs(judgement: Judgement) -> str:
    kl = (
        "not measured: no base model to compare with"
        if judgement.kl is None
        else f"{decimal(judgement.kl, 1)} nats an image"
    )
    loss = judgement.diffusion_loss
    shown = "not measured" if loss is None else f"{decimal(loss[0], 4)} → {decimal(loss[1], 4)}"
    return f"<p>KL from the base: {kl}. Diffusion loss on held-out data: {shown}.</p>"


def write(title: str, judgement: Judgement, largest: list[Pair], spread: list[Pair], made: str) -> str:
    """The page."""
    css = judgement.verdict.split()[0] if judgement.verdict != "no gain" else ""
    better = f"Intervals: {LEVEL:.0%}, over prompts; the same prompts and noise for both; one seed."
    return page(
        title,
        STYLE,
        f'<p class="verdict {css}">{escape(judgement.verdict.capitalize())}</p>',
        f"<p>{escape(MEANING[judgement.verdict].capitalize())}: {escape(judgement.reason)}.</p>",
        costs(judgement),
        scores_table(judgement.lines),
        f"<p>{better}</p><p>{escape(CAUTION)}</p>",
        "<h2>Where the proxy rose most beyond what it stands for</h2><p>Left: base; right: checked.</p>",
        figures(largest),
        "<h2>Prompts from the whole suite</h2>",
        figures(spread),
        f"<p><small>{escape(made)}</small></p>",
    )
