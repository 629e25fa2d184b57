"""GenEval's detector with transformers' Mask2Former: objects of COCO's 80 classes, their colour by CLIP.

GenEval itself runs an mmdet checkpoint of the same architecture and size (Swin-S, COCO instances). The
image enters at mmdet's test scale, and masks are scored and cut as mmdet does; the weights differ, so
scores are close to the official ones, not equal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from rewards.geneval_rules import MAX_OBJECTS
from rewards.published.clip import CLIP_L, ClipEncoder
from rewards.published.hub import HubFiles, folder
from rewards.published.images import IMAGENET_MEAN, IMAGENET_STD, device, normalised, to_pil

DETECTOR = HubFiles(
    "facebook/mask2former-swin-small-coco-instance",
    ("config.json", "model.safetensors"),
    "MIT (Mask2Former's repository; the hub page says 'other')",
    None,
)
SHORT, LONG = 800, 1333  # upstream: mmdet's test scale
TOP = 100  # upstream: mmdet test_cfg max_per_image
BACKGROUND = "#999"  # upstream: GenEval evaluate_images.py
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
# GenEval's object_names.txt: COCO's order. Some names differ from COCO's, so classes map by index.
CLASSES = tuple(
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,"
    "parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,"
    "tie,suitcase,frisbee,skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,"
    "tennis racket,bottle,wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,"
    "hot dog,pizza,donut,cake,chair,couch,potted plant,bed,dining table,toilet,tv,laptop,computer mouse,"
    "tv remote,computer keyboard,cell phone,microwave,oven,toaster,sink,refrigerator,book,clock,vase,"
    "scissors,teddy bear,hair drier,toothbrush".split(",")
)


@dataclass
class Detection:
    """An object: box (left, top, right, bottom) in pixels, of which right and bottom are the first outside,
    mask bool (H, W), score in [0, 1]."""

    box: tuple[int, int, int, int]
    mask: np.ndarray
    score: float
    color: str = ""

    @property
    def centre(self) -> tuple[float, float]:
        left, top, right, bottom = self.box
        return (left + right) / 2, (top + bottom) / 2

    @property
    def width(self) -> int:
        return self.box[2] - self.box[0]

    @property
    def height(self) -> int:
        return self.box[3] - self.box[1]


def test_size(width: int, height: int) -> tuple[int, int]:
    """The scale at which mmdet looks: shorter side 800 unless the longer one would pass 1333."""
    scale = min(SHORT / min(width, height), LONG / max(width, height))
    return round(width * scale), round(height * scale)


def instances(class_logits: torch.Tensor, mask_logits: torch.Tensor, threshold: float) -> dict[int, list]:
    """Detections of one image by class index, the most confident first.

    An object's score is its class probability times the mean of the mask's probabilities inside the mask
    (mmdet's ``instance_postprocess``).

    Args:
        class_logits: (Q, C + 1), the last class is "none".
        mask_logits: (Q, H, W) at the image's size.
        threshold: scores below do not count.
    """
    probabilities = class_logits.softmax(-1)[:, :-1]
    best = probabilities.flatten().topk(min(TOP, probabilities.numel()))
    found: dict[int, list[Detection]] = {}
    for probability, place in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        query, index = divmod(place, probabilities.shape[1])
        mask = mask_logits[query] > 0
        if probability <= threshold or not mask.any():
            continue
        score = probability * mask_logits[query][mask].sigmoid().mean().item()
        if score <= threshold:
            continue
        rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
        box = tuple(int(v) for v in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
        found.setdefault(index, []).append(Detection(box, mask.cpu().numpy(), score))
    return {index: sorted(objects, key=lambda o: -o.score)[:MAX_OBJECTS] for index, objects in found.items()}


class Mask2FormerDetector:
    """Objects with classes, and on request their colours."""

    hub = (DETECTOR, CLIP_L)

    def __init__(self):
        from transformers import Mask2FormerForUniversalSegmentation

        model = Mask2FormerForUniversalSegmentation.from_pretrained(folder(DETECTOR), use_safetensors=True)
        if model.config.num_labels != len(CLASSES):
            raise ValueError(f"{DETECTOR.repository} has {model.config.num_labels} classes, not COCO's 80")
        self.model = model.eval().requires_grad_(False).to(device())
        self.clip = ClipEncoder.open(folder(CLIP_L), folder(CLIP_L))
        self._colour_classifiers: dict[str, torch.Tensor] = {}

    def detect(self, image: torch.Tensor, threshold: float) -> dict[str, list[Detection]]:
        """Objects of one image, float (3, H, W) in [0, 1], by GenEval's class names."""
        (picture,) = to_pil(image[None])
        scaled = picture.resize(test_size(*picture.size), Image.Resampling.BILINEAR)
        pixels = normalised([scaled], IMAGENET_MEAN, IMAGENET_STD).to(self.model.device)
        seen = self.model(pixel_values=pixels)
        masks = F.interpolate(
            seen.masks_queries_logits, size=image.shape[-2:], mode="bilinear", align_corners=False
        )
        found = instances(seen.class_queries_logits[0], masks[0], threshold)
        return {CLASSES[index]: objects for index, objects in found.items()}

    def name_colours(self, image: torch.Tensor, objects: list[Detection], name: str) -> None:
        """Write each object's colour: zero-shot classification of its cut-out on grey."""
        if not objects:
            return
        (picture,) = to_pil(image[None])
        blank = Image.new("RGB", picture.size, BACKGROUND)
        crops = []
        for item in objects:
            alone = Image.composite(picture, blank, Image.fromarray(item.mask))
            crops.append(alone.crop(item.box))
        best = (self.clip.pictures(crops) @ self._colour_classifier(name).T).argmax(1)
        for item, index in zip(objects, best.tolist(), strict=True):
            item.color = COLOURS[index]

    def _colour_classifier(self, name: str) -> torch.Tensor:
        """One unit vector per colour, the mean over GenEval's templates. (10, D)."""
        if name not in self._colour_classifiers:
            texts = [
                f"a photo of a {what}"
                for color in COLOURS
                for what in (f"{color} {name}", f"{color}-colored {name}", f"{color} object")
            ]
            embedded = self.clip.texts(texts).unflatten(0, (len(COLOURS), -1))
            self._colour_classifiers[name] = F.normalize(embedded.mean(1), dim=-1)
        return self._colour_classifiers[name]
