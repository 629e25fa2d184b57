"""Prompt sets of the world that moves: clips from a text, and clips from a text and their first frame.

``motion_train`` and ``motion_test`` say what moves and how. ``motion_image_train`` and ``motion_image_test``
give the first frame (``first_frame``: the seed it is drawn with) and say how it goes on: "it moves left".
No composition of a test set is trained, in either kind.
"""

from __future__ import annotations

import itertools
import random

from scenes.composition import composition
from scenes.motion import BOUNCES, DIRECTIONS
from scenes.prompts import SPLIT_SEED, finish, item, test_prompts
from scenes.vocabulary import COLOURS, NUMERALS, SHAPES, plural

TEST_PROMPTS = {"direction": 16, "speed": 16, "still": 6, "bounce": 10, "count_motion": 16}
HELD_OUT = {  # compositions: of 72, of 144, of 18, of 36 and of 144
    "direction": 12,
    "speed": 16,
    "still": 4,
    "bounce": 8,
    "count_motion": 16,
}


def _moves(tag: str, how: str, motion: dict, count: int = 1) -> list[dict]:
    """Prompts of every shape and colour that moves so; ``how`` begins with the verb in the singular."""
    prompts = []
    for shape, color in itertools.product(SHAPES, COLOURS):
        subject, verb = f"a {color} {shape}", how
        if count > 1:
            subject, verb = f"{NUMERALS[count]} {color} {plural(shape)}", how.replace("moves", "move", 1)
        prompts += finish(tag, f"{subject} {verb}", [item(shape, count, color=color, motion=motion)])
    return prompts


def direction() -> list[dict]:
    return [
        p for d in DIRECTIONS for p in _moves("direction", f"moves {d}", {"kind": "move", "direction": d})
    ]


def speed() -> list[dict]:
    return [
        p
        for d, s in itertools.product(DIRECTIONS, ("slowly", "quickly"))
        for p in _moves("speed", f"moves {d} {s}", {"kind": "move", "direction": d, "speed": s})
    ]


def still() -> list[dict]:
    return _moves("still", "stands still", {"kind": "still"})


def bounce() -> list[dict]:
    return [p for d in BOUNCES for p in _moves("bounce", f"bounces {d}", {"kind": "bounce", "direction": d})]


def count_motion() -> list[dict]:
    return [
        p
        for d, n in itertools.product(DIRECTIONS, (2, 3))
        for p in _moves("count_motion", f"moves {d}", {"kind": "move", "direction": d}, n)
    ]


TAGS = {build.__name__: build for build in (direction, speed, still, bounce, count_motion)}


def from_first_frame(prompt: dict, seed: int) -> dict:
    """The same clip, its first frame given: the caption says only how it goes on."""
    (moving,) = prompt["include"]
    pronoun, noun = ("it", moving["class"]) if moving["count"] == 1 else ("they", plural(moving["class"]))
    action = prompt["prompt"].split(noun, 1)[1].removesuffix(f" on {prompt.get('background')}")
    return {**prompt, "prompt": pronoun + action, "first_frame": seed}


def split() -> dict[str, list[dict]]:
    """All prompt sets by name."""
    rng, held_out = random.Random(SPLIT_SEED), set()
    pools, test = {}, []
    for tag, build in TAGS.items():
        pools[tag] = prompts = build()
        rng.shuffle(prompts)
        test += test_prompts(prompts, TEST_PROMPTS[tag], HELD_OUT[tag], held_out)
    train = [p for prompts in pools.values() for p in prompts if composition(p) not in held_out]
    sets = {"motion_train": train, "motion_test": test}
    for name, prompts in list(sets.items()):
        first = 0 if name.endswith("train") else 1_000_000  # no test clip has a training clip's layout
        image = [from_first_frame(p, seed) for seed, p in enumerate(prompts, first)]
        sets[name.replace("motion", "motion_image")] = image
    return sets
