"""A second preference score: a transformer, trained on scenes, corruptions and decoded images of its own."""

from __future__ import annotations

from rewards.base import Reward
from rewards.networks import TOKENIZER, ImageViT, in_chunks
from rewards.scene_preference import PreferenceModel
from rewards.weights import load_weights
from scenes.vocabulary import IMAGE_SIZE


class ScenePreferenceViT(Reward):
    name = "scene_preference_vit"
    image_size = IMAGE_SIZE
    scale = "logit, unbounded, of arbitrary zero: 1 more is preferred with odds e : 1"
    licence = "Apache-2.0 (trained in this repository)"
    weights = ("scorers/scene_preference_vit.safetensors",)

    def __init__(self):
        self.model = PreferenceModel(ImageViT()).eval()
        self.model.load_state_dict(load_weights(self.weights[0]))

    def score(self, images, prompts, metadata):
        return in_chunks(self.model, images, TOKENIZER(prompts))
