"""GenEval's graded score, the reward that training sees; the rules stand in ``rewards/geneval.py``."""

from __future__ import annotations

from rewards.base import Reward
from rewards.geneval import score_images
from rewards.geneval_rules import check_include
from scenes.vocabulary import IMAGE_SIZE, check_vocabulary


class GenEvalPartial(Reward):
    name = "geneval_partial"
    role = "proxy"
    image_size = IMAGE_SIZE
    scale = "at most 1; 1 when all is right, below 0 possible for a large surplus of objects"
    licence = "rules: MIT (GenEval); detector: Apache-2.0 (this repository)"
    expected_base = {"tiny-sd3": 0.40, "tiny-flux": 0.30}
    expected_source = "docs/results"

    def score(self, images, prompts, metadata):
        return score_images(images, metadata, "partial")

    @classmethod
    def check_prompts(cls, metadata):
        check_include(metadata)
        check_vocabulary(metadata)
