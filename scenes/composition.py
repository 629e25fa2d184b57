"""What a prompt asks for, wording aside: two prompts with one composition are the same task.

Kept are objects, their counts, colours, motions and relations (GenEval's metadata, arXiv 2310.11513).
Left out are the order in which they are named, the background, and what GenEval excludes: "one red circle"
asks for what "a red circle" does, and "a circle left of a square" for what "a square right of a circle" does.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable

from core.prompts import FIRST_FRAME

_MIRRORED = {"right of": "left of", "below": "above"}
_QUOTED = re.compile(r'"([^"]+)"')


def words(text: str) -> str:
    """The words of a text in lower case, punctuation and white space aside; the text where it has none."""
    return " ".join(re.findall(r"\w+", text.casefold())) or text.strip()


def _motion(item: dict) -> tuple:
    """How an object of a clip moves; nothing of an image's."""
    return tuple(sorted(item.get("motion", {}).items()))


def _objects(include: list[dict]) -> Hashable:
    names = [(item["class"], item.get("color"), *_motion(item)) for item in include]
    counts: Counter = Counter()
    relations: Counter = Counter()
    for name, item in zip(names, include, strict=True):
        counts[name] += item["count"]
        if item.get("position"):
            relation, other = item["position"]
            ends = (name, names[other])
            relations[_MIRRORED.get(relation, relation), ends[::-1] if relation in _MIRRORED else ends] += 1
    return "objects", frozenset(counts.items()), frozenset(relations.items())


def composition(prompt: dict) -> Hashable:
    """Equal for prompts that ask for the same, in whatever words.

    Args:
        prompt: a prompt dict of ``scenes.prompts``, or one of a published set.

    Returns:
        Objects where ``include`` names some; the quoted text where the tag is ``text``; the prompt's words
        otherwise.
    """
    if prompt.get("include"):
        return _objects(prompt["include"])
    if prompt["tag"] == "text" and (quoted := _QUOTED.findall(prompt["prompt"])):
        return "text", tuple(map(words, quoted))
    frame = [prompt[FIRST_FRAME]] if FIRST_FRAME in prompt else []  # the words say only how it goes on
    return "words", words(prompt["prompt"]), *frame
