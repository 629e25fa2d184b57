"""UnifiedReward: Qwen2.5-VL-7B asked for a score from 1 to 5 (arXiv 2503.05236).

The two criteria and the form of the answer are upstream's pointwise image score; the wording is this
project's. Scores compare within this suite, not with published tables.
"""

from __future__ import annotations

import re

import torch

from rewards.base import Reward
from rewards.published import qwen_vl
from rewards.published.hub import INDEX, HubFiles
from rewards.published.images import crop_to, in_batches, to_pil

MODEL = HubFiles(
    "CodeGoat24/UnifiedReward-qwen-7b",
    ("config.json", "tokenizer.json", "tokenizer_config.json", INDEX),
    "MIT",
    None,
)
SIZE = 512  # upstream: flow_grpo rewards.py resizes to 512 x 512
LEAST, MOST = 56 * 56, 12845056  # upstream: preprocessor_config.json of Qwen2.5-VL, pixels
NEW_TOKENS = 512  # upstream: UnifiedReward's inference script
BATCH = 8  # images per forward pass; no effect on the scores
ANSWER = re.compile(r"Final Score:\s*([1-5](?:\.\d+)?)")  # upstream: flow_grpo rewards.py
QUESTION = (
    "Judge the image, which was generated from a caption, by two criteria: (1) Alignment with the Caption: "
    "are the objects, their attributes and their relations those of the caption? (2) Overall Image Quality: "
    "is the image clear, detailed and pleasing? List the caption's elements as 'element (type): value', with "
    "value 1 if the image shows it and 0 if not. Then write 'Final Score:' and a score from 1 to 5.\n"
    "Text Caption: [{caption}]"
)


def read_score(answer: str) -> float:
    """The number after "Final Score:", 0 where there is none."""
    found = ANSWER.search(answer)
    return float(found.group(1)) if found else 0.0


class UnifiedReward(Reward):
    name = "unified_reward"
    scale = "1 to 5; 0 where the answer holds no score (Flow-GRPO divides by 5)"
    licence = "MIT (weights); Apache-2.0 (Qwen2.5-VL)"
    hub = (MODEL,)

    def __init__(self):
        self.tokenizer, self.model = qwen_vl.opened("Qwen2_5_VLForConditionalGeneration", MODEL)

    def answers(self, images: torch.Tensor, prompts: list[str]) -> list[str]:
        """What the model writes, word by word the likeliest."""
        pictures = [crop_to(picture, SIZE) for picture in to_pil(images)]
        texts = [QUESTION.format(caption=prompt) for prompt in prompts]
        inputs = qwen_vl.batch(self.tokenizer, pictures, texts, LEAST, MOST, padding_side="left")
        written = self.model.generate(
            **inputs.arguments(self.tokenizer, self.model),
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
        )
        return self.tokenizer.batch_decode(written[:, inputs.input_ids.shape[1] :], skip_special_tokens=True)

    def score(self, images, prompts, metadata):
        def batch(rows: torch.Tensor, texts: list[str]) -> torch.Tensor:
            return torch.tensor([read_score(answer) for answer in self.answers(rows, texts)])

        return in_batches(batch, BATCH, images, prompts)
