"""Where things are, whatever they are: edges over a coarse grid. A rule without weights."""

from __future__ import annotations

from torch.nn import functional as F

from rewards.features.base import Features

CELLS = 8  # ours: an object of the embedded world is two to four cells wide


class Layout(Features):
    """How much of an image's edges lies in each of 8 x 8 cells.

    Equal shares are equal features: a stronger contrast or another colour changes nothing.
    """

    name = "layout"
    scale = "0 to 1: 1 where no two images of a prompt have edges in the same place"
    licence = "Apache-2.0 (this repository)"

    def embed(self, images):
        down, right = images.diff(dim=2)[..., :, :-1], images.diff(dim=3)[..., :-1, :]
        edges = (down.square() + right.square()).sum(1, keepdim=True).sqrt()
        cells = F.adaptive_avg_pool2d(edges, CELLS).flatten(1)
        return F.normalize(cells + 1e-6, p=1, dim=1).sqrt()  # an image without edges has them nowhere more
