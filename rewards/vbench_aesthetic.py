"""VBench's aesthetic quality (arXiv 2311.17982): LAION's first aesthetic predictor on CLIP ViT-L/14.

Its head is one linear layer (``sa_0_4_vit_l_14_linear.pth``). ``aesthetic_v2`` takes the same CLIP and the
five layers of LAION's improved predictor: other weights and other training data.
"""

from __future__ import annotations

import torch
from torch import nn

from rewards.base import Reward
from rewards.published.clip import BATCH, CLIP_L, ClipEncoder
from rewards.published.github import GitHubFiles
from rewards.published.hub import file, folder
from rewards.published.images import crop_to_aliased, in_batches

HEAD = GitHubFiles(
    "github.com/LAION-AI/aesthetic-predictor",
    ("sa_0_4_vit_l_14_linear.pth",),
    "MIT",
    "6d122adad522ab246644d9dc1c6d7a3810ee255f",
    blobs=("d4135b63efbaac587bcb1cdfa02ac082071a5e40",),
)


class VBenchAesthetic(Reward):
    """The predictor's score divided by ten; of a clip, the mean over its frames, as VBench takes it.

    A frozen clip keeps the score of its frame.
    """

    name = "vbench_aesthetic"
    scale = "about 0 to 1 (tables show it times 100)"
    licence = "Apache-2.0 (VBench); MIT (predictor, CLIP's code)"
    hub = (HEAD, CLIP_L)

    def __init__(self):
        self.clip = ClipEncoder.open(folder(CLIP_L), folder(CLIP_L), crop_to_aliased)
        self.head = nn.Linear(self.clip.model.config.projection_dim, 1)
        self.head.load_state_dict(torch.load(file(HEAD), map_location="cpu", weights_only=True))
        self.head.eval().to(self.clip.model.device)

    def score(self, images, prompts, metadata):
        return in_batches(lambda rows: self.head(self.clip.images(rows))[:, 0] / 10, BATCH, images)
