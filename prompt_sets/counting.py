"""GARDO's counting task for photographs (arXiv 2512.24138 Table 2): one to nine objects trained, ten and
eleven unseen.

The paper's prompts are not public. These follow GenEval's counting generator (djghosh13/geneval
``create_prompts.py``): "a photo of seven apples", n of the class included, n + 1 excluded. Which classes are
held out, and how many prompts there are, is ours.
"""

from __future__ import annotations

import random

from prompt_sets.coco import CLASSES
from scenes.prompts import MAX_TRAINED_COUNT, SPLIT_SEED
from scenes.vocabulary import NUMERALS

HELD_OUT = 10  # ours: classes per trained count that are tested and not trained, 90 prompts in all
UNSEEN = 30  # ours: prompts for ten objects, and as many for eleven


def _article(name: str) -> str:
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def _plural(name: str) -> str:
    """As GenEval writes it: "toothbrushs", "sheeps", "skises"."""
    return f"{name}es" if name.endswith("s") else f"{name}s"


def prompt(name: str, count: int) -> dict:
    """One counting prompt; one object has its article, as GenEval's single objects do."""
    what = _article(name) if count == 1 else f"{NUMERALS[count]} {_plural(name)}"
    return {
        "tag": "counting",
        "prompt": f"a photo of {what}",
        "include": [{"class": name, "count": count}],
        "exclude": [{"class": name, "count": count + 1}],
    }


def split() -> tuple[list[dict], list[dict]]:
    """Training and test prompts, disjoint, by a fixed seed."""
    rng = random.Random(SPLIT_SEED)
    train, test = [], []
    for count in range(1, MAX_TRAINED_COUNT + 1):
        shuffled = rng.sample(CLASSES, len(CLASSES))
        test += [prompt(name, count) for name in shuffled[:HELD_OUT]]
        train += [prompt(name, count) for name in shuffled[HELD_OUT:]]
    for count in (MAX_TRAINED_COUNT + 1, MAX_TRAINED_COUNT + 2):
        test += [prompt(name, count) for name in rng.sample(CLASSES, UNSEEN)]
    return train, test


GENERATED = {"counting_train": lambda: split()[0], "counting_test": lambda: split()[1]}
