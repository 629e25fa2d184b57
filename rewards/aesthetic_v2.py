"""LAION's improved aesthetic predictor: people's ratings, regressed on CLIP ViT-L/14 embeddings."""

from __future__ import annotations

import torch

from rewards.base import Reward
from rewards.published.clip import BATCH, CLIP_L, ClipEncoder
from rewards.published.hub import HubFiles, file, folder
from rewards.published.images import in_batches
from rewards.published.linear_head import LinearHead

# The hub's copy of sac+logos+ava1-l14-linearMSE.pth (christophschuhmann/improved-aesthetic-predictor).
HEAD = HubFiles(
    "trl-lib/ddpo-aesthetic-predictor",
    ("aesthetic-model.pth",),
    "Apache-2.0 (the predictor's repository)",
    "cf4bd10345610935a80a5d3be9a3133c50f121e4",
)


class AestheticV2(Reward):
    name = "aesthetic_v2"
    role = "auxiliary"
    scale = "about 1 to 10 (Flow-GRPO's configs weigh it as it is)"
    licence = "Apache-2.0 (predictor); MIT (CLIP's code)"
    hub = (HEAD, CLIP_L)
    expected_base = {"sd3.5-medium": 5.07}
    expected_source = "GARDO Table 1"

    def __init__(self):
        self.clip = ClipEncoder.open(folder(CLIP_L), folder(CLIP_L))
        self.head = LinearHead()
        self.head.load_state_dict(torch.load(file(HEAD), map_location="cpu", weights_only=True))
        self.head.eval().to(self.clip.model.device)

    def score(self, images, prompts, metadata):
        return in_batches(lambda rows: self.head(self.clip.images(rows)), BATCH, images)
