"""One page with the grid's evaluation images: the same noise down the methods, the largest gaps first.

It opens without a network. Each method's images of a step are one sheet of tiles, which plays where they are
clips; where all of them would make the file large, prompts are left out evenly, and the page says so.
"""

from __future__ import annotations

import base64
import io
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from core.animation import animated
from core.files import write_text
from core.media import chosen_frames
from core.prompts import read as read_prompts
from evaluation import images as stored_images
from reporting.layout import load_layout
from reporting.results import Results

TEMPLATE = Path(__file__).with_name("gallery.html")
TILE = 96  # pixels of a tile's height at most
FRAMES, FRAMES_PER_SECOND = 12, 8  # of a clip at most, evenly chosen, and how fast they play
LINE = 8000  # characters
BUDGET = 20_000_000  # bytes of the file, over which prompts are left out
COMPRESSED = 0.67  # bytes of the file for each of the pixels' bytes, measured on the embedded world's images


@dataclass(frozen=True)
class Sheet:
    """The images of one method's run at one step."""

    method: str
    run: str
    step: int
    path: Path


def sheets(results: Results, rows: pd.DataFrame, suite: str) -> list[Sheet]:
    """Those whose images were kept, of the first seed; ``rows``: scores of one base and task."""
    mine = rows[(rows["seed"] == rows["seed"].min()) & (rows["suite"] == suite)]
    found = []
    for method, run, step in mine[["method", "run", "step"]].drop_duplicates().itertuples(index=False):
        path = stored_images.path_of(results.run(run) / "images", suite, step)
        if path.exists():
            found.append(Sheet(method, run, int(step), path))
    return sorted(found, key=lambda sheet: (list(results.settings.methods).index(sheet.method), sheet.step))


def tiles(sheet: Sheet, wanted: np.ndarray, k: int) -> np.ndarray:
    """uint8 (n, f, h, w, 3): images or clips of these prompts as frames, none higher than ``TILE``."""
    media = stored_images.load(sheet.path, wanted, k)
    return np.stack([_small(chosen_frames(pixels, FRAMES)) for pixels in media.reshape(-1, *media.shape[2:])])


def _small(frames: np.ndarray) -> np.ndarray:
    pictures = [Image.fromarray(frame) for frame in frames]
    for picture in pictures:
        picture.thumbnail((10_000, TILE))
    return np.stack([np.asarray(picture) for picture in pictures])


def sprite(pictures: np.ndarray, columns: int) -> list[str]:
    """All tiles (n, f, h, w, 3) on one sheet, as an address that holds its data, in parts: each is a line of
    the file.

    The report is read by docutils, which refuses lines of more than 10,000 characters.
    """
    n, count, height, width = pictures.shape[:4]
    lines = math.ceil(n / columns)
    padded = np.zeros((lines * columns, count, height, width, 3), np.uint8)
    padded[:n] = pictures
    whole = padded.reshape(lines, columns, count, height, width, 3).transpose(2, 0, 3, 1, 4, 5)
    frames = whole.reshape(count, lines * height, columns * width, 3)
    address = "data:image/webp;base64," + base64.b64encode(_webp(frames)).decode()
    return [address[start : start + LINE] for start in range(0, len(address), LINE)]


def _webp(frames: np.ndarray) -> bytes:
    if len(frames) > 1:
        return animated(frames, FRAMES_PER_SECOND)
    buffer = io.BytesIO()
    Image.fromarray(frames[0]).save(buffer, "webp", lossless=True, method=4)
    return buffer.getvalue()


def _scores(results: Results, sheet: Sheet, suite: str, metric: str, wanted: np.ndarray, k: int) -> list:
    """By tile; None where the metric is not taken on its prompt."""
    found = results.scores.images.get((sheet.run, sheet.step, suite, metric))
    if found is None or found.values.shape[1] != k:
        return [None] * (len(wanted) * k)
    row = {prompt: i for i, prompt in enumerate(found.prompts.tolist())}
    return [
        round(float(found.values[row[p], image]), 4) if p in row else None
        for p in wanted.tolist()
        for image in range(k)
    ]


def place(results: Results, base: str, task: str, share: float) -> dict | None:
    """What the page needs of one base model and task, with ``share`` of its prompts."""
    settings, table = results.settings, results.scores.table
    suite, rows = settings.suites[task], table[(table["base"] == base) & (table["task"] == task)]
    found = sheets(results, rows, suite.name)
    if not found:
        return None
    prompts = [prompt["prompt"] for prompt in read_prompts(Path(suite.prompts))]
    count, k = max(1, round(share * len(prompts))), stored_images.per_prompt(found[0].path)
    wanted = np.unique(np.linspace(0, len(prompts) - 1, count).astype(int))
    columns = math.ceil(math.sqrt(len(wanted) * k))
    untrained = load_layout().base_method
    proxy, gold = settings.proxies[task], _gold(rows)
    steps, sprites, scores = {}, {}, {metric: {} for metric in (proxy, gold) if metric}
    for sheet in found:
        pictures = tiles(sheet, wanted, k)
        steps.setdefault(sheet.method, []).append(sheet.step)
        sprites.setdefault(sheet.method, []).append(sprite(pictures, columns))
        for metric, by_method in scores.items():
            values = _scores(results, sheet, suite.name, metric, wanted, k)
            by_method.setdefault(sheet.method, []).append(values)
    label = f"{base}, {task}"
    left_out = "" if count == len(prompts) else f" {count} of {len(prompts)} prompts are here."
    return {
        "label": label,
        "seed": int(rows["seed"].min()),
        "base": untrained,
        "first": next((m for m in steps if m != untrained), untrained),
        "methods": [[method, settings.methods[method]] for method in steps],
        "steps": steps,
        "sprites": sprites,
        "scores": scores,
        "spread": {metric: _spread(of.get(untrained)) for metric, of in scores.items()},
        "proxy": proxy,
        "gold": gold,
        "prompts": [prompts[i] for i in wanted],
        "tiles": [row for row in range(len(wanted)) for _ in range(k)],
        "columns": columns,
        "aspect": pictures.shape[3] / pictures.shape[2],
        "note": f"green and red: above and below the base model on the same noise.{left_out}",
    }


def _gold(rows: pd.DataFrame) -> str | None:
    found = sorted(set(rows.loc[rows["role"] == "gold", "metric"]))
    return found[0] if found else None


def _spread(values: list | None) -> float:
    """Standard deviation over the untrained model's images."""
    known = [v for v in (values or [[]])[0] if v is not None]
    return float(np.std(known)) if known else 1.0


def share_of(results: Results) -> float:
    """Share of the prompts for which the file stays within its budget."""
    total = 0
    for base, task in results.places():
        table = results.scores.table
        rows = table[(table["base"] == base) & (table["task"] == task)]
        for sheet in sheets(results, rows, results.settings.suites[task].name):
            first = chosen_frames(next(stored_images.stream(sheet.path)), FRAMES)
            scale = min(1.0, TILE / first.shape[1])
            total += first.size * scale**2 * stored_images.count(sheet.path)
    return min(1.0, BUDGET / (total * COMPRESSED)) if total else 1.0


def render(results: Results, out: Path) -> None:
    """``out`` (.html)."""
    share = share_of(results)
    found = [place(results, base, task, share) for base, task in results.places()]
    data = json.dumps([entry for entry in found if entry], indent=0).replace("</", "<\\/")
    write_text(out, TEMPLATE.read_text(encoding="utf-8").replace("@DATA@", data))
