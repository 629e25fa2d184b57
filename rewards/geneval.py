"""GenEval on scenes: a rule-based detector, then the rules of ``rewards/geneval_rules.py``.

The detector is this world's own: coloured blobs, each of the class whose outline fits best among those the
prompt asks for, as a detector with an open vocabulary is asked. It looks neither at the background nor at
how badly an outline fits, which is how it can be hacked.
"""

from __future__ import annotations

from typing import Literal

import torch

from rewards.base import Reward
from rewards.geneval_rules import MAX_OBJECTS, check_include, position_holds, strict_correct
from scenes.gold import shape_iou
from scenes.segmentation import Blob, blobs
from scenes.vocabulary import IMAGE_SIZE, check_vocabulary

MIN_AREA = 6  # pixels; a circle of the smallest drawn radius covers about 20
SMALL = 7  # pixels; boxes up to this size are ambiguous
AMBIGUITY = 0.25  # intersection over union that a small blob's class may lack of the best one


def detect_classes(blob: Blob, asked: set[str]) -> set[str]:
    """The asked shapes whose ideal outline fits best into the blob's bounding box, however badly it fits.

    Like a detector with a low score threshold, it gives a small and ambiguous blob more than one class.
    """
    fits = {shape: shape_iou(blob, shape) for shape in asked}
    slack = AMBIGUITY if max(blob.height, blob.width) <= SMALL else 0.0
    return {shape for shape, fit in fits.items() if fit >= max(fits.values()) - slack}


def partial_score(by_class: dict[str, list[Blob]], prompt: dict) -> float:
    """The training reward: mean over clauses of graded terms. No lower clip: a surplus can go below 0.

    It differs from ``rewards.geneval_rules.partial_score``, the reward server's rule, in one point: a
    relation to a clause that is itself wrong appends no term, where the server appends a 0.
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
                    relation, other = item["position"]
                    if not position_holds(relation, objects, matched[other]):
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


class GenEval(Reward):
    name = "geneval"
    role = "proxy"
    image_size = IMAGE_SIZE
    scale = "0 or 1 per image: strict correctness (count, colour, position exactly right)"
    licence = "rules: MIT (GenEval); detector: Apache-2.0 (this repository)"
    expected_base = {"tiny-sd3": 0.23, "tiny-flux": 0.18}
    expected_source = "docs/results"

    def score(self, images, prompts, metadata):
        return score_images(images, metadata, "strict")

    @classmethod
    def check_prompts(cls, metadata):
        check_include(metadata)
        check_vocabulary(metadata)
