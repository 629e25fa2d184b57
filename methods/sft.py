"""Supervised fine-tuning: the data term of DDRL alone (arXiv 2512.04332, a baseline there).

No image is generated and no reward is called.
"""

from __future__ import annotations

import torch

from methods.base import Method, MethodConfig, Needs, Prepared
from methods.ddrl import data_loss


class SFT(Method):
    name = "sft"
    Config = MethodConfig

    @property
    def needs(self):
        return Needs(data=True, process="data")

    def prepare(self, rollout):
        nothing = torch.zeros_like(rollout.rewards)
        return Prepared(nothing, nothing > 0)

    def loss(self, batch):
        loss = data_loss(batch.data.velocity, batch.data.x0, batch.data.noise).sum() / batch.data_rows
        return loss, {"data_loss": loss.item()}
