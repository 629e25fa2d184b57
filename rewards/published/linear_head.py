"""The head that LAION's aesthetic predictor and ImageReward share: five linear layers in a row."""

from __future__ import annotations

import torch
from torch import nn


class LinearHead(nn.Module):
    """Features (N, width) -> scores (N,). There is no activation between the layers: the map is linear.

    Dropout stands between them so that the parameters' names are those of the published files.
    """

    def __init__(self, width: int = 768):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, 1024),
            nn.Dropout(0.2),
            nn.Linear(1024, 128),
            nn.Dropout(0.2),
            nn.Linear(128, 64),
            nn.Dropout(0.1),
            nn.Linear(64, 16),
            nn.Linear(16, 1),
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.layers(features)[:, 0]
