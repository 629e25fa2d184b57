"""GenEval on scenes: a rule-based detector, then the official rules.

The rules follow GenEval (arXiv 2310.11513, ``evaluate_images.py``) and, for the partial score that
training uses, the reward server of Flow-GRPO (arXiv 2505.05470). The detector is this world's own:
coloured blobs, each of the class whose outline fits best among those the prompt asks for, as a detector
with an open vocabulary is asked. It looks neither at the background nor at how badly an outline fits, which
is how it can be hacked.
"""

from __future__ import annotations

import math
from typing import Literal

import torch

from rewards.base import Reward
from scenes.gold import shape_iou
from scenes.segmentation import Blob, blobs

MIN_AREA = 6  # pixels; a circle of the smallest drawn radius covers about 20
SMALL = 7  # pixels; boxes up to this size are ambiguous
AMBIGUITY = 0.25  # intersection over union that a small blob's class may lack of the best one
MAX_OBJECTS = 16  # per class, GenEval's limit
POSITION_THRESHOLD = 0.1  # GenEval evaluate_images.py


def detect_classes(blob: Blob, asked: set[str]) -> set[str]:
    """The asked shapes whose ideal outline fits best into the blob's bounding box, however badly it fits.

    Like a detector with a low score threshold, it gives a small and ambiguous blob more than one class.
    """
    fits = {shape: shape_iou(blob, shape) for shape in asked}
    slack = AMBIGUITY if max(blob.height, blob.width) <= SMALL else 0.0
    return {shape for shape, fit in fits.items() if fit >= max(fits.values()) - slack}


def relations(first: Blob, second: Blob) -> set[str]:
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


def _position_holds(item: dict, objects: list[Blob], matched: list[list[Blob]]) -> bool:
    relation, other = item["position"]
    return all(relation in relations(a, b) for a in objects for b in matched[other])


def strict_correct(by_class: dict[str, list[Blob]], prompt: dict) -> bool:
    """True when count, colour count and position of every include clause are exactly right."""
    matched: list[list[Blob]] = []
    for item in prompt["include"]:
        objects = by_class.get(item["class"], [])
        if "color" in item:
            objects = [b for b in objects if b.color == item["color"]]
        if len(by_class.get(item["class"], [])) != item["count"] or len(objects) != item["count"]:
            return False
        if "position" in item and not _position_holds(item, objects, matched):
            return False
        matched.append(objects)
    return True


def partial_score(by_class: dict[str, list[Blob]], prompt: dict) -> float:
    """The training reward: mean over clauses of graded terms. No lower clip: a surplus can go below 0.

    Two habits of the reward server are kept, since published curves contain them: a wrong count in a
    clause with a colour or position appends a 0, and a wrong relation appends a 0 and then also a 1.
    """
    terms: list[float] = []
    matched: list[list[Blob]] = []
    all_matched = True
    for item in prompt["include"]:
        objects, wanted = by_class.get(item["class"], []), item["count"]
        terms.append(1 - abs(wanted - len(objects)) / wanted)
        if len(objects) != wanted:
            all_matched = False
            if "color" in item or "position" in item:
                terms.append(0.0)
        else:
            if "color" in item:
                colored = [b for b in objects if b.color == item["color"]]
                terms.append(1 - abs(wanted - len(colored)) / wanted)
                all_matched &= len(colored) == wanted
            if "position" in item and all_matched:
                if not matched[item["position"][1]]:
                    terms.append(0.0)
                else:
                    if not _position_holds(item, objects, matched):
                        terms.append(0.0)
                    terms.append(1.0)
        matched.append(objects)
    return sum(terms) / len(terms)


def score_images(
    images: torch.Tensor, metadata: list[dict], mode: Literal["partial", "strict"]
) -> torch.Tensor:
    """float32 (N,) from float (N, 3, H, W) in [0, 1]."""
    found = blobs(images.permute(0, 2, 3, 1).cpu().numpy(), MIN_AREA)
    scores = []
    for items, prompt in zip(found, metadata, strict=True):
        by_class: dict[str, list[Blob]] = {}
        asked = {item["class"] for item in prompt["include"]}
        for blob in items:
            for shape in detect_classes(blob, asked):
                group = by_class.setdefault(shape, [])
                if len(group) < MAX_OBJECTS:
                    group.append(blob)
        scores.append(
            partial_score(by_class, prompt) if mode == "partial" else float(strict_correct(by_class, prompt))
        )
    return torch.tensor(scores, dtype=torch.float32)


def check_include(metadata: list[dict]) -> None:
    """Every prompt needs GenEval's ``include`` list."""
    for prompt in metadata:
        if not prompt.get("include"):
            raise ValueError(f"prompt {prompt['prompt']!r} has no 'include' list, which geneval scores")


class GenEval(Reward):
    name = "geneval"
    scale = "0 or 1 per image: strict correctness (count, colour, position exactly right)"
    licence = "rules: MIT (GenEval); detector: Apache-2.0 (this repository)"
    expected_base = 0.20

    def score(self, images, prompts, metadata):
        return score_images(images, metadata, "strict")

    @classmethod
    def check_prompts(cls, metadata):
        check_include(metadata)
