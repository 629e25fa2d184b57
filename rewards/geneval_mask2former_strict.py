"""GenEval on photographs with exact counts in every clause, the reward server's strict accuracy."""

from __future__ import annotations

from rewards.geneval_mask2former import GenEvalMask2Former
from rewards.geneval_rules import strict_correct


class GenEvalMask2FormerStrict(GenEvalMask2Former):
    name = "geneval_mask2former_strict"
    scale = "0 or 1 per image: count, colour and position exactly right"
    expected_base = {}
    expected_source = ""
    rule = staticmethod(strict_correct)
