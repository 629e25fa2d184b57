"""CLIPScore: cosine of image and caption in OpenAI's CLIP ViT-L/14 (arXiv 2104.08718).

Images are scaled bilinearly, as by GARDO's ``clip_scorer.py``, and not bicubically as by CLIP's own code.
"""

from __future__ import annotations

from rewards.base import Reward
from rewards.published.clip import BATCH, CLIP_L, ClipEncoder
from rewards.published.hub import folder
from rewards.published.images import crop_to_bilinear, in_batches


class CLIPScore(Reward):
    name = "clipscore"
    scale = "-100 to 100: 100 times the cosine"
    licence = "MIT (CLIP's code; the weights carry no licence tag)"
    hub = (CLIP_L,)
    expected_base = {"sd3.5-medium": 28.2}
    expected_source = "GARDO Table 1"

    def __init__(self):
        self.clip = ClipEncoder.open(folder(CLIP_L), folder(CLIP_L), crop_to_bilinear)

    def score(self, images, prompts, metadata):
        return 100 * in_batches(self.clip.cosine, BATCH, images, prompts)
