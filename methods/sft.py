"""Supervised fine-tuning: the data term of DDRL alone (arXiv 2512.04332, a baseline there).

No image is generated and no reward is called.
"""

from __future__ import annotations

from methods.base import Loss, Method, MethodConfig, Needs
from methods.ddrl import data_loss


class SFTConfig(MethodConfig):
    def needs(self):
        return Needs(data=True, process="data")


class SFT(Method):
    name = "sft"
    Config = SFTConfig

    def loss(self, batch):
        loss = data_loss(batch.data.velocity, batch.data.x0, batch.data.noise).sum() / batch.data_rows
        return Loss(loss, logged={"data_loss": loss.item()})
