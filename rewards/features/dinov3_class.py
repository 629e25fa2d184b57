"""DINOv3's class token (arXiv 2508.10104): what a photograph shows, its colours and places largely aside.

It was trained to be the same for two crops of a picture with other colours; ``dinov3``, GARDO's features, is
the mean of the patches, which keeps more of where and how.
"""

from __future__ import annotations

from rewards.features.dinov3 import DINOv3


class DINOv3Class(DINOv3):
    name = "dinov3_class"
    expected_base = {}
    expected_source = ""

    def _pooled(self, tokens):
        return tokens[:, 0]
