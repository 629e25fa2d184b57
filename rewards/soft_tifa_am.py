"""Soft-TIFA on GenEval 2's prompts, by atom (arXiv 2512.16853): how much of a prompt is right?"""

from __future__ import annotations

import torch

from rewards.soft_tifa_gm import SoftTifaGM


class SoftTifaAM(SoftTifaGM):
    name = "soft_tifa_am"
    scale = "0 to 1 per image: mean probability of its prompt's right answers"

    def score(self, images, prompts, metadata):
        return torch.stack([scores.mean() for scores in self.atoms(images, metadata)])
