"""Prompt files: one JSON object a line, in GenEval's metadata schema (arXiv 2310.11513).

A prompt is a dict ``{"tag", "prompt", "include": [{"class", "count", "color"?, "position"?}], ...}``;
``scenes/prompts.py`` says what the keys mean.
"""

from __future__ import annotations

import json
from pathlib import Path


def read(path: Path) -> list[dict]:
    """Read a prompt file; a line that is not a prompt raises ``ValueError`` with its number."""
    prompts = []
    for number, line in enumerate(Path(path).read_text().splitlines(), start=1):
        try:
            prompt = json.loads(line)
            prompt["tag"], prompt["prompt"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}, line {number}: not a prompt with 'tag' and 'prompt' ({error})"
            ) from None
        prompts.append(prompt)
    if not prompts:
        raise ValueError(f"{path}: holds no prompt")
    return prompts


def count_objects(prompt: dict) -> int:
    """Objects that a prompt asks for."""
    return sum(item["count"] for item in prompt["include"])
