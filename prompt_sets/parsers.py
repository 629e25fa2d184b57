"""From the formats in which prompt sets are published to the suite's prompts (see ``scenes.prompts``).

A parser takes the text of a file and returns prompts ``{"tag", "prompt", "include", "exclude"}``. It raises
``ValueError`` with the number of the line it cannot use.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from core.prompts import SKILLS
from prompt_sets.coco import CLASSES


def _prompt(text: str, tag: str) -> dict:
    return {"tag": tag, "prompt": text, "include": [], "exclude": []}


def _lines(text: str) -> list[tuple[int, str]]:
    """Numbered lines that hold something. Only a newline ends one: prompts hold other separators."""
    return [(n, line.strip()) for n, line in enumerate(text.split("\n"), start=1) if line.strip()]


def lines(text: str) -> list[dict]:
    """One prompt per line."""
    return [_prompt(line, "prompt") for _, line in _lines(text)]


def quoted_lines(text: str) -> list[dict]:
    """One prompt per line, each with the text to be drawn in ASCII double quotes (Flow-GRPO's ``ocr``).

    A quote that is never closed reaches to the line's end, as upstream's rule has it.
    """
    for number, line in _lines(text):
        if not line.partition('"')[2].strip(' "'):
            raise ValueError(f"line {number}: no text in double quotes: {line!r}")
    return [_prompt(line, "text") for _, line in _lines(text)]


def geneval(text: str) -> list[dict]:
    """GenEval's metadata (arXiv 2310.11513), one JSON object per line."""
    prompts = []
    for number, line in _lines(text):
        try:
            value = json.loads(line)
            named = [*value["include"], *value.get("exclude", [])]
            unknown = [item["class"] for item in named if item["class"] not in CLASSES]
            prompt = {key: value[key] for key in ("tag", "prompt", "include")}
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"line {number}: no GenEval metadata ({error!r})") from None
        if unknown or not value["include"]:
            raise ValueError(f"line {number}: {f'unknown class {unknown[0]!r}' if unknown else 'no object'}")
        prompts.append(prompt | {"exclude": value.get("exclude", [])})
    return prompts


def geneval2(text: str) -> list[dict]:
    """GenEval 2 (arXiv 2512.16853), one JSON object per line: a prompt with questions for a model.

    The tag is the number of atoms, by which the paper groups its scores. ``questions``: per atom the skill,
    the question and its right answer.
    """
    prompts = []
    for number, line in _lines(text):
        try:
            value = json.loads(line)
            asked = zip(value["skills"], value["vqa_list"], strict=True)
            questions = [{"skill": s, "question": q, "answer": a} for s, (q, a) in asked]
            prompt = _prompt(value["prompt"], f"atoms_{value['atom_count']:d}")
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"line {number}: no GenEval 2 metadata ({error!r})") from None
        unknown = [q["skill"] for q in questions if q["skill"] not in SKILLS]
        if unknown or not questions:
            raise ValueError(
                f"line {number}: {f'unknown skill {unknown[0]!r}' if unknown else 'no question'}"
            )
        prompts.append(prompt | {"questions": questions})
    return prompts


def json_list(text: str) -> list[dict]:
    """A JSON list of strings (HPDv2's benchmark)."""
    try:
        values = json.loads(text)
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(values, list) or not all(isinstance(v, str) and v.strip() for v in values):
        raise ValueError("not a JSON list of strings")
    return [_prompt(value.strip(), "prompt") for value in values]


PARSERS: dict[str, Callable[[str], list[dict]]] = {
    parser.__name__: parser for parser in (lines, quoted_lines, geneval, geneval2, json_list)
}
