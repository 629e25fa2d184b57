"""GenEval's graded score on photographs, the reward that training sees."""

from __future__ import annotations

from rewards.geneval_mask2former import GenEvalMask2Former
from rewards.geneval_rules import partial_score


class GenEvalMask2FormerPartial(GenEvalMask2Former):
    name = "geneval_mask2former_partial"
    scale = "at most 1; 1 when all is right, -14 for 16 objects in place of one"
    expected_base = {}
    expected_source = ""
    rule = staticmethod(partial_score)
