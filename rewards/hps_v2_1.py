"""HPSv2.1: a CLIP ViT-H/14 fine-tuned on ranked images (arXiv 2306.09341).

The checkpoint has OpenCLIP's parameter names; it is loaded into transformers' class, which saves a
dependency. Images become squares by black borders, as in the official code.
"""

from __future__ import annotations

import torch

from rewards.base import Reward
from rewards.published.clip import BATCH, CLIP_H, ClipEncoder
from rewards.published.hub import HubFiles, file, folder
from rewards.published.images import in_batches, pad_to
from rewards.published.open_clip import to_transformers

MODEL = HubFiles(
    "xswu/HPSv2",
    ("HPS_v2.1_compressed.pt",),
    "Apache-2.0",
    "697403c78157020a1ae59d23f111aa58ced35b0a",
)


class HPSv21(Reward):
    name = "hps_v2_1"
    role = "proxy"
    scale = "-1 to 1: the cosine, about 0.2 to 0.35 (tables show it times 100)"
    licence = "Apache-2.0"
    hub = (MODEL, CLIP_H)

    def __init__(self):
        from transformers import CLIPConfig, CLIPModel

        state = torch.load(file(MODEL), map_location="cpu", weights_only=True)["state_dict"]
        model = CLIPModel(CLIPConfig.from_pretrained(folder(CLIP_H)))
        model.load_state_dict(to_transformers(state))
        self.clip = ClipEncoder(model.float(), folder(CLIP_H), pad_to)

    def score(self, images, prompts, metadata):
        return in_batches(self.clip.cosine, BATCH, images, prompts)
