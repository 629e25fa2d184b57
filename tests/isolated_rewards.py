"""Rewards that a service runs in the tests of its life: one that works, and ones that fail in every way."""

import os
import sys
import time

import torch

from rewards.base import Reward


class Bright(Reward):
    """Scores by brightness; prompts ask for trouble."""

    name, scale, licence = "bright", "0 to 1", "-"
    environment = "test"

    def score(self, images, prompts, metadata):
        if "raise" in prompts:
            raise MemoryError("out of memory")
        if "hang" in prompts:
            time.sleep(600)
        if "die" in prompts:
            os._exit(3)
        print("libraries may print")  # must not reach the line that holds the port
        return images.mean((1, 2, 3)) * (float("nan") if "nan" in prompts else 1)


class Unloadable(Reward):
    name, scale, licence = "unloadable", "-", "-"
    environment = "test"

    def __init__(self):
        raise OSError("weights.safetensors is not readable")

    def score(self, images, prompts, metadata):
        return torch.zeros(len(images))


class Crashing(Unloadable):
    name = "crashing"

    def __init__(self):
        print("a library crashes", file=sys.stderr)
        os._exit(7)
