"""How much consecutive frames differ: a reward that judges clips as a whole."""

from rewards.base import Reward


class FrameChange(Reward):
    name = "frame_change"
    medium = "clip"
    scale = "0 to 1"
    licence = "Apache-2.0"

    def score(self, images, prompts, metadata):
        return images.diff(dim=1).abs().flatten(1).mean(1)
