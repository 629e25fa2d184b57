"""PickScore: a CLIP ViT-H/14 fine-tuned on people's choices between two images (arXiv 2305.01569)."""

from __future__ import annotations

from rewards.base import Reward
from rewards.published.clip import BATCH, CLIP_H, ClipEncoder
from rewards.published.hub import HubFiles, folder
from rewards.published.images import in_batches

MODEL = HubFiles(
    "yuvalkirstain/PickScore_v1",
    ("config.json", "model.safetensors"),
    "no licence tag; code MIT",
    "a4e4367c6dfa7288a00c550414478f865b875800",
)


class PickScore(Reward):
    name = "pickscore"
    scale = "logit: 100 times the cosine (Flow-GRPO divides by 26), about 18 to 26"
    licence = "code MIT; the weights carry no licence tag"
    hub = (MODEL, CLIP_H)
    expected_base = {"sd3.5-medium": 22.40}
    expected_source = "GARDO Table 1"

    def __init__(self):
        self.clip = ClipEncoder.open(folder(MODEL), folder(CLIP_H))

    def score(self, images, prompts, metadata):
        return self.clip.logit_scale * in_batches(self.clip.cosine, BATCH, images, prompts)
