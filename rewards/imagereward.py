"""ImageReward: a BLIP fine-tuned on ranked images (arXiv 2304.05977).

The package ``image-reward`` imports what transformers 5 no longer has, so the published checkpoint is
loaded into transformers' own BLIP classes.
"""

from __future__ import annotations

import json

import torch

from rewards.base import Reward
from rewards.published import blip
from rewards.published.hub import HubFiles, folder
from rewards.published.images import device, in_batches, square
from rewards.published.linear_head import LinearHead

MODEL = HubFiles(
    "zai-org/ImageReward",
    ("ImageReward.pt", "med_config.json"),
    "Apache-2.0",
    "5736be03b2652728fb87788c9797b0570450ab72",
)
TOKENIZER = HubFiles(
    "google-bert/bert-base-uncased",
    ("tokenizer.json", "tokenizer_config.json"),
    "Apache-2.0",
    "86b5e0934494bd15c9632b12f734a8a67f723594",
)
BATCH = 16  # images per forward pass; no effect on the scores
CAPTION_TOKENS = 35  # upstream: ImageReward.py
MEAN, STD = 0.16717362830052426, 1.0333394966054072  # upstream: ImageReward.py, of the training set's scores


class ImageReward(Reward):
    name = "imagereward"
    role = "auxiliary"
    scale = "standard deviations of the training set's scores, about -2.3 to 2"
    licence = "Apache-2.0"
    hub = (MODEL, TOKENIZER)
    expected_base = {"sd3.5-medium": 0.83}
    expected_source = "GARDO Table 1"

    def __init__(self):
        from transformers import BertTokenizer

        here = folder(MODEL)
        state = torch.load(here / "ImageReward.pt", map_location="cpu", weights_only=True)
        config = json.loads((here / "med_config.json").read_text())
        self.vision = blip.vision_model(blip.part(state, "blip.visual_encoder."))
        width = self.vision.config.hidden_size
        self.text = blip.text_model(blip.part(state, "blip.text_encoder."), config, width)
        self.head = LinearHead(config["hidden_size"])
        self.head.load_state_dict(blip.part(state, "mlp."))
        for module in (self.vision, self.text, self.head):
            module.float().eval().requires_grad_(False).to(device())
        self.tokenizer = BertTokenizer.from_pretrained(folder(TOKENIZER))

    def _batch(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        pixels = square(images, self.vision.config.image_size).to(self.vision.device)
        seen = self.vision(pixel_values=pixels).last_hidden_state
        tokens = self.tokenizer(
            prompts, padding="max_length", truncation=True, max_length=CAPTION_TOKENS, return_tensors="pt"
        ).to(self.text.device)
        read = self.text(
            input_ids=tokens.input_ids,
            attention_mask=tokens.attention_mask,
            encoder_hidden_states=seen,
            encoder_attention_mask=torch.ones(seen.shape[:2], dtype=torch.long, device=seen.device),
        ).last_hidden_state
        return (self.head(read[:, 0]) - MEAN) / STD

    def score(self, images, prompts, metadata):
        return in_batches(self._batch, BATCH, images, prompts)
