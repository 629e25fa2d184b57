"""Clips for the scorers of the moving world: every prompt of it, and captions wrong in one attribute."""

from __future__ import annotations

import random

import numpy as np
import torch
from tqdm import tqdm

from core.prompts import FIRST_FRAME
from pretraining.scorers.data import CaptionTable, to_float
from rewards.clip_networks import CLIP_TOKENIZER
from scenes import motion_prompts
from scenes.motion import RADIUS, render_clip
from scenes.vocabulary import BACKGROUNDS, COLOURS, MOTIONS, NUMERALS, SHAPES, SPEEDS, plural

# Scorers are judges, not policies: they may know the held-out prompts.
TAG_SHARES = {"direction": 0.3, "speed": 0.28, "still": 0.1, "bounce": 0.14, "count_motion": 0.18}
FROM_FIRST_FRAME = 0.3  # of the captions say only how the clip goes on
OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up"}
_VERBS = {"move": "move", "bounce": "bounce", "still": "stand"}
_SPEEDS = (None, *SPEEDS)
_ACTIONS = [(kind, direction) for kind, names in MOTIONS.items() for direction in names]


def sample_prompts(n: int, seed: int) -> list[dict]:
    """``n`` prompts of the moving world, tags drawn by ``TAG_SHARES``."""
    pools = {tag: build() for tag, build in motion_prompts.TAGS.items()}
    rng = random.Random(seed)
    prompts = []
    for tag in rng.choices(list(TAG_SHARES), weights=list(TAG_SHARES.values()), k=n):
        prompt = rng.choice(pools[tag])
        shortened = rng.random() < FROM_FIRST_FRAME
        prompts.append(motion_prompts.from_first_frame(prompt, 0) if shortened else prompt)
    return prompts


def render_all(prompts: list[dict], seed: int) -> torch.Tensor:
    """uint8 (N, F, 3, H, W). Clip i has the seed ``seed + i``."""
    bar = tqdm(prompts, desc="rendering", unit="clip", mininterval=2, disable=len(prompts) < 2000)
    clips = np.stack([render_clip(prompt, seed + i) for i, prompt in enumerate(bar)])
    return torch.from_numpy(clips).movedim(-1, -3).contiguous()


# --- captions ----------------------------------------------------------------------------------------


def parts(prompt: dict) -> dict:
    """What a caption is made of: ``caption(parts(prompt))`` is that of the prompt."""
    (item,) = prompt["include"]
    motion, short = item["motion"], FIRST_FRAME in prompt
    return {
        "named": not short,
        "count": item["count"],
        "color": item["color"],
        "shape": item["class"],
        "action": (motion["kind"], motion.get("direction")),
        "speed": motion.get("speed"),
        "background": None if short else prompt.get("background"),
    }


def caption(said: dict) -> str:
    """The caption that says so."""
    one, (kind, direction) = said["count"] == 1, said["action"]
    if said["named"]:
        noun = said["shape"] if one else plural(said["shape"])
        subject = f"{'a' if one else NUMERALS[said['count']]} {said['color']} {noun}"
    else:
        subject = "it" if one else "they"
    words = [subject, _VERBS[kind] + "s" * one, direction or "still", said["speed"]]
    if said["background"]:
        words.append(f"on {said['background']}")
    return " ".join(word for word in words if word)


def edits(prompt: dict) -> dict[str, list[str]]:
    """Captions that differ in one attribute and are false of every clip of ``prompt``, by attribute.

    A caption without a speed stands for one between "slowly" and "quickly".
    """
    said = parts(prompt)
    kind, direction = said["action"]
    wrong: dict[str, list[dict]] = {
        "motion": [
            {"action": action, "speed": None if action[0] != "move" else said["speed"]}
            for action in _ACTIONS
            if action[0] != kind
        ],
        "direction": [
            {"action": (kind, other)}
            for other in MOTIONS[kind]
            if other not in (direction, OPPOSITE.get(direction))
        ],
    }
    if kind == "move":
        wrong["opposite"] = [{"action": (kind, OPPOSITE[direction])}]
        wrong["speed"] = [{"speed": speed} for speed in SPEEDS if speed != said["speed"]]
    counts = RADIUS if said["named"] else (1, 2)
    same = said["count"] if said["named"] else min(said["count"], 2)
    wrong["count"] = [{"count": count} for count in counts if count != same]
    if said["named"]:
        wrong["color"] = [{"color": color} for color in COLOURS if color != said["color"]]
        wrong["shape"] = [{"shape": shape} for shape in SHAPES if shape != said["shape"]]
    if said["background"]:
        wrong["background"] = [{"background": b} for b in BACKGROUNDS if b != said["background"]]
    return {
        attribute: [caption({**said, **change}) for change in changes]
        for attribute, changes in wrong.items()
        if changes
    }


def _codes(prompt: dict, said_only: bool) -> list[int]:
    """What a caption says, or what holds for the prompt's clips, as numbers; -1 where it is open."""
    found = parts(prompt)
    kind, _ = found["action"]
    named, speed, background = found["named"] or not said_only, found["speed"], found["background"]
    return [
        int(found["count"] > 1),
        found["count"] if named else -1,
        list(COLOURS).index(found["color"]) if named else -1,
        SHAPES.index(found["shape"]) if named else -1,
        _ACTIONS.index(found["action"]),
        -1 if kind != "move" or (said_only and speed is None) else _SPEEDS.index(speed),
        list(BACKGROUNDS).index(background) if background else -1,
    ]


class Captions(CaptionTable):
    """Those of clips, by their prompts."""

    def __init__(self, prompts: list[dict]):
        unique = {prompt["prompt"]: prompt for prompt in prompts}
        edits_of = {text: edits(prompt) for text, prompt in unique.items()}
        super().__init__([prompt["prompt"] for prompt in prompts], edits_of, CLIP_TOKENIZER)
        self.said = torch.tensor([_codes(prompt, said_only=True) for prompt in prompts])
        self.facts = torch.tensor([_codes(prompt, said_only=False) for prompt in prompts])

    def may_agree(self, index: torch.Tensor) -> torch.Tensor:
        """True at [i, j] where caption i may hold for clip j. bool (B, B)."""
        said, facts = self.said[index][:, None], self.facts[index][None]
        return ((said == facts) | (said < 0) | (facts < 0)).all(-1)


class Clips:
    """Rendered clips with captions, and batches of their indices."""

    def __init__(self, n: int, seed: int):
        self.prompts = sample_prompts(n, seed)
        self.clips = render_all(self.prompts, seed)
        self.captions = Captions(self.prompts)

    def draw(self, batch: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Indices (B,) and float clips (B, F, 3, H, W)."""
        index = torch.randint(len(self.clips), (batch,), generator=generator)
        return index, to_float(self.clips[index])
