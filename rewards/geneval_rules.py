"""GenEval's rules on detected objects, whatever detects them.

They follow GenEval (arXiv 2310.11513, ``evaluate_images.py``) and, for the strict and the partial score,
the reward server of Flow-GRPO (arXiv 2505.05470, ``gen_eval.py``). A prompt is GenEval's metadata: clauses
``include`` ({"class", "count"} and optionally "color", "position": [relation, index of another clause])
and ``exclude`` ({"class", "count"}).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

MAX_OBJECTS = 16  # per class, GenEval's limit
POSITION_THRESHOLD = 0.1  # GenEval evaluate_images.py


class DetectedObject(Protocol):
    """Pixels: centre (x, y), width and height of the box. ``color`` is read only where a clause names one."""

    centre: tuple[float, float]
    width: float
    height: float
    color: str


Detections = Mapping[str, Sequence[DetectedObject]]


def relations(first: DetectedObject, second: DetectedObject) -> set[str]:
    """GenEval's relative position of ``first`` to ``second``."""
    offsets = []
    for axis, size in ((0, "width"), (1, "height")):
        raw = first.centre[axis] - second.centre[axis]
        slack = POSITION_THRESHOLD * (getattr(first, size) + getattr(second, size))
        offsets.append((raw, math.copysign(max(abs(raw) - slack, 0.0), raw)))
    (raw_x, x), (raw_y, y) = offsets
    norm = math.hypot(raw_x, raw_y)
    if norm == 0:
        return set()
    dx, dy = x / norm, y / norm
    named = {"left of": dx < -0.5, "right of": dx > 0.5, "above": dy < -0.5, "below": dy > 0.5}
    return {name for name, holds in named.items() if holds}


def position_holds(
    relation: str, objects: Sequence[DetectedObject], others: Sequence[DetectedObject]
) -> bool:
    """Every object stands in the relation to every other one."""
    return all(relation in relations(a, b) for a in objects for b in others)


def _of_colour(objects: Sequence[DetectedObject], color: str) -> int:
    return sum(o.color == color for o in objects)


def correct(by_class: Detections, prompt: dict) -> bool:
    """GenEval's accuracy: at least the wanted objects, judged by the most confident ones, no excluded class.

    Args:
        by_class: objects of each class, the most confident first.
    """
    matched: list[Sequence[DetectedObject]] = []
    for item in prompt["include"]:
        objects = by_class.get(item["class"], [])[: item["count"]]
        if len(objects) < item["count"]:
            return False
        if "color" in item and _of_colour(objects, item["color"]) < item["count"]:
            return False
        if "position" in item:
            relation, other = item["position"]
            if not position_holds(relation, objects, matched[other]):
                return False
        matched.append(objects)
    return all(len(by_class.get(item["class"], [])) < item["count"] for item in prompt.get("exclude", []))


def strict_correct(by_class: Detections, prompt: dict) -> bool:
    """True when count, colour count and position of every include clause are exactly right."""
    matched: list[Sequence[DetectedObject]] = []
    for item in prompt["include"]:
        objects = by_class.get(item["class"], [])
        if len(objects) != item["count"]:
            return False
        if "color" in item and _of_colour(objects, item["color"]) != item["count"]:
            return False
        if "position" in item:
            relation, other = item["position"]
            if not position_holds(relation, objects, matched[other]):
                return False
        matched.append(objects)
    return True


def partial_score(by_class: Detections, prompt: dict) -> float:
    """The reward server's training reward: mean over graded terms, with no lower clip.

    Two habits of the server are kept, since published curves contain them: a wrong count in a clause with
    a colour or position appends a 0, and a wrong relation appends a 0 and then also a 1.
    """
    terms: list[float] = []
    matched: list[Sequence[DetectedObject] | None] = []
    for item in prompt["include"]:
        objects, wanted = by_class.get(item["class"], []), item["count"]
        terms.append(1 - abs(wanted - len(objects)) / wanted)
        right = len(objects) == wanted
        if not right and ("color" in item or "position" in item):
            terms.append(0.0)
        if right and "color" in item:
            colored = _of_colour(objects, item["color"])
            terms.append(1 - abs(wanted - colored) / wanted)
            right = colored == wanted
        if right and "position" in item:
            relation, other = item["position"]
            if matched[other] is None:
                terms.append(0.0)
                right = False
            else:
                right = position_holds(relation, objects, matched[other])
                terms += [1.0] if right else [0.0, 1.0]
        matched.append(objects if right else None)
    return sum(terms) / len(terms)


def shares_by_tag(tags: Sequence[str], scores: Sequence[float]) -> dict[str, float]:
    """Mean score of the images of each tag, tags in order of first appearance."""
    by_tag: dict[str, list[float]] = {}
    for tag, score in zip(tags, scores, strict=True):
        by_tag.setdefault(tag, []).append(score)
    return {tag: sum(own) / len(own) for tag, own in by_tag.items()}


def overall_score(tags: Sequence[str], scores: Sequence[float]) -> float:
    """GenEval's published number: the mean of the tags' shares, however many images a tag has
    (``summary_scores.py``)."""
    shares = shares_by_tag(tags, scores)
    return sum(shares.values()) / len(shares)


def tag_weights(tags: Sequence[str]) -> list[float]:
    """Weights of images of these tags, 1 in the mean, that give every tag the same share: the mean of
    weighted scores is ``overall_score``."""
    counts = Counter(tags)
    return [len(tags) / (len(counts) * counts[tag]) for tag in tags]


def check_include(metadata: list[dict]) -> None:
    """Every prompt needs GenEval's ``include`` list."""
    for prompt in metadata:
        if not prompt.get("include"):
            raise ValueError(f"prompt {prompt['prompt']!r} has no 'include' list, which geneval scores")
