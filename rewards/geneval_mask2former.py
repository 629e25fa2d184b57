"""GenEval on photographs: Mask2Former detects, CLIP names colours, the official rules judge."""

from __future__ import annotations

from collections.abc import Callable

import torch

from rewards.base import Reward
from rewards.geneval_rules import Detections, check_include, correct, tag_weights
from rewards.published.mask2former import CLASSES, COLOURS, Mask2FormerDetector

THRESHOLD, COUNTING_THRESHOLD = 0.3, 0.9  # upstream: GenEval evaluate_images.py
RELATIONS = ("left of", "right of", "above", "below")


class GenEvalMask2Former(Reward):
    """Accuracy as GenEval publishes it: at least the wanted objects, no excluded class."""

    name = "geneval_mask2former"
    role = "proxy"
    scale = "0 or 1 per image: GenEval's accuracy"
    licence = "rules: MIT (GenEval); weights: MIT (Mask2Former's repository, CLIP's code)"
    hub = Mask2FormerDetector.hub
    expected_base = {"sd3.5-medium": 0.63}
    expected_source = "GARDO Table 1, with mmdet's checkpoint"
    rule: Callable[[Detections, dict], float] = staticmethod(correct)

    def __init__(self):
        self.detector = Mask2FormerDetector()

    def score(self, images, prompts, metadata):
        return torch.tensor([float(self._judge(*pair)) for pair in zip(images, metadata, strict=True)])

    def _judge(self, image: torch.Tensor, prompt: dict) -> float:
        threshold = COUNTING_THRESHOLD if prompt["tag"] == "counting" else THRESHOLD
        found = self.detector.detect(image, threshold)
        for item in prompt["include"]:
            if "color" in item:
                self.detector.name_colours(image, found.get(item["class"], []), item["class"])
        return self.rule(found, prompt)

    @classmethod
    def prompt_weights(cls, metadata):
        return torch.tensor(tag_weights([prompt["tag"] for prompt in metadata]))

    @classmethod
    def check_prompts(cls, metadata):
        check_include(metadata)
        for prompt in metadata:
            for index, item in enumerate(prompt["include"]):
                relation, other = item.get("position", (RELATIONS[0], -1))
                for key, value, valid in (
                    ("class", item["class"], CLASSES),
                    ("color", item.get("color", COLOURS[0]), COLOURS),
                    ("position", relation, RELATIONS),
                ):
                    if value not in valid:
                        where = f"prompt {prompt['prompt']!r}: {key} {value!r}"
                        raise ValueError(f"{where} is none of GenEval's: {', '.join(valid)}")
                if other >= index:
                    raise ValueError(f"prompt {prompt['prompt']!r}: a position refers to a later clause")
