"""Prompt sets in GenEval's metadata schema (arXiv 2310.11513, ``evaluation_metadata.jsonl``).

A prompt is a dict ``{"tag", "prompt", "include": [{"class", "count", "color"?, "position"?}],
"exclude": [...], "background"?}``. ``position`` is ``[relation, index]``: the object stands in that
relation to ``include[index]``. Text prompts have the tag ``text`` and the target in double quotes.
``background`` is the world's own key: GenEval's rules ignore it, the gold reward does not.

What a test set asks for is never trained, in whatever words and on whatever background: whole compositions
(``scenes.composition``) are held out, chosen by a fixed seed. The small tags hold out as much as they can
spare: one of the three shapes of ``single_object`` and one of the three pairs of ``two_object``, so that a
score on either is that of a single composition.

Held out means from fine-tuning, and from the base models that ``rebuild_base`` makes. The shipped base models
were pre-trained on other prompts of this world, compositions of the test sets among them, as any published
text-to-image model has seen some of what it is tested on.
"""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from collections.abc import Hashable
from pathlib import Path

from scenes.composition import composition
from scenes.vocabulary import (
    BACKGROUNDS,
    CODE_DIGITS,
    CODE_LETTERS,
    COLOURS,
    NUMERALS,
    RELATIONS,
    SHAPES,
    plural,
)

SPLIT_SEED = 43  # GenEval's create_prompts.py uses 43 as well
MAX_TRAINED_COUNT = 9  # GARDO Table 2: trained on 1-9 objects, 10 and 11 unseen
TEST_PROMPTS = {
    "single_object": 4,
    "two_object": 8,
    "counting": 16,
    "colors": 8,
    "position": 14,
    "color_attr": 14,
}
HELD_OUT = {  # compositions: of 3, of 3, of 18, of 12 and of 90
    "single_object": 1,
    "two_object": 1,
    "colors": 6,
    "position": 4,
    "color_attr": 14,
}
TEST_PROMPTS_PER_COUNT = 4  # of 1-9 objects, as many compositions of the 21 of each count
TEST_PROMPTS_PER_UNSEEN_COUNT = 12


def finish(tag: str, text: str, include: list[dict], exclude: list[dict] | None = None) -> list[dict]:
    """One prompt per background, and one that leaves the background open."""
    base = {"tag": tag, "include": include, "exclude": exclude or []}
    variants = [{**base, "prompt": text}]
    for background in BACKGROUNDS:
        variants.append({**base, "prompt": f"{text} on {background}", "background": background})
    return variants


def item(shape: str, count: int = 1, **more) -> dict:
    """One entry of ``include``."""
    return {"class": shape, "count": count, **more}


def single_object() -> list[dict]:
    return [p for s in SHAPES for p in finish("single_object", f"a {s}", [item(s)])]


def two_object() -> list[dict]:
    pairs = itertools.permutations(SHAPES, 2)
    return [p for a, b in pairs for p in finish("two_object", f"a {a} and a {b}", [item(a), item(b)])]


def counting(low: int = 1, high: int = MAX_TRAINED_COUNT) -> list[dict]:
    prompts = []
    for count, shape, color in itertools.product(range(low, high + 1), SHAPES, (None, *COLOURS)):
        noun = shape if count == 1 else plural(shape)
        text = " ".join(w for w in (NUMERALS[count], color, noun) if w)
        counted = item(shape, count, **({"color": color} if color else {}))
        prompts += finish("counting", text, [counted], [{"class": shape, "count": count + 1}])
    return prompts


def colors() -> list[dict]:
    pairs = itertools.product(SHAPES, COLOURS)
    return [p for s, c in pairs for p in finish("colors", f"a {c} {s}", [item(s, color=c)])]


def position() -> list[dict]:
    prompts = []
    for (a, b), relation in itertools.product(itertools.permutations(SHAPES, 2), RELATIONS):
        include = [item(b), item(a, position=[relation, 0])]
        prompts += finish("position", f"a {a} {relation} a {b}", include)
    return prompts


def color_attr() -> list[dict]:
    prompts = []
    for (a, b), (c, d) in itertools.product(
        itertools.permutations(SHAPES, 2), itertools.permutations(COLOURS, 2)
    ):
        include = [item(a, color=c), item(b, color=d)]
        prompts += finish("color_attr", f"a {c} {a} and a {d} {b}", include)
    return prompts


def text() -> list[dict]:
    """A coloured sign with a letter and a digit on it."""
    prompts = []
    for letter, digit, color in itertools.product(CODE_LETTERS, CODE_DIGITS, COLOURS):
        code = letter + digit
        for prompt in finish("text", f'a {color} sign "{code}"', []):
            prompts.append({**prompt, "sign": {"text": code, "color": color}})
    return prompts


GENEVAL_TAGS = {
    "single_object": single_object,
    "two_object": two_object,
    "counting": counting,
    "colors": colors,
    "position": position,
    "color_attr": color_attr,
}


def _parts(wanted: Hashable) -> list:
    """What a composition is made of: shapes, colours, both together, relations, each with its two ends."""
    _, objects, relations = wanted
    parts = [part for (name, _) in objects for part in (*name, name)]
    for (relation, ends), _ in relations:
        parts += [relation, *((relation, side, end) for side, end in enumerate(ends))]
    return parts


def test_prompts(prompts: list[dict], size: int, compositions: int, held_out: set) -> list[dict]:
    """``size`` of the prompts, spread evenly over ``compositions`` of them, which join ``held_out``.

    What another tag holds out comes first ("one red circle" is "a red circle"), then what is made of
    the parts least chosen so far, so that training keeps every colour, and every shape on each side of a
    relation.
    """
    groups: dict = {}
    for prompt in prompts:
        groups.setdefault(composition(prompt), []).append(prompt)
    chosen, seen = [], Counter()
    for _ in range(compositions):
        left = (c for c in groups if c not in chosen)
        chosen.append(min(left, key=lambda c: (c not in held_out, sum(seen[part] for part in _parts(c)))))
        seen.update(_parts(chosen[-1]))
    held_out.update(chosen)
    rounds = itertools.zip_longest(*(groups[c] for c in chosen))
    return [prompt for one_of_each in rounds for prompt in one_of_each if prompt][:size]


def split() -> dict[str, list[dict]]:
    """All prompt sets by name: ``geneval``, ``counting`` and ``ocr``, each ``_train`` and ``_test``.

    ``counting_test`` holds 1-9 objects (the same held-out prompts as in ``geneval_test`` and more)
    and the never trained counts ten and eleven. No composition of ``geneval_test`` or ``counting_test`` is in
    ``geneval_train`` or ``counting_train``, and no code of ``ocr_test`` in ``ocr_train``.
    """
    rng = random.Random(SPLIT_SEED)
    pools: dict[str, list[dict]] = {}
    sets: dict[str, list[dict]] = {"geneval_train": [], "geneval_test": []}
    held_out: set = set()
    for tag, build in GENEVAL_TAGS.items():
        pools[tag] = prompts = build()
        rng.shuffle(prompts)
        if tag == "counting":
            # As many prompts for every count, so that accuracy by number of objects has equal weight.
            sets["counting_test"], size = [], TEST_PROMPTS_PER_COUNT
            for count in range(1, MAX_TRAINED_COUNT + 1):
                counted = [p for p in prompts if p["include"][0]["count"] == count]
                sets["counting_test"] += test_prompts(counted, size, size, held_out)
            sets["geneval_test"] += rng.sample(sets["counting_test"], TEST_PROMPTS[tag])
        else:
            sets["geneval_test"] += test_prompts(prompts, TEST_PROMPTS[tag], HELD_OUT[tag], held_out)
    for tag, prompts in pools.items():
        trained = [p for p in prompts if composition(p) not in held_out]
        sets["geneval_train"] += trained
        if tag == "counting":
            sets["counting_train"] = trained
    for count in range(MAX_TRAINED_COUNT + 1, MAX_TRAINED_COUNT + 3):
        unseen, size = counting(count, count), TEST_PROMPTS_PER_UNSEEN_COUNT
        rng.shuffle(unseen)
        sets["counting_test"] += test_prompts(unseen, size, size, held_out)

    codes = [a + b for a, b in itertools.product(CODE_LETTERS, CODE_DIGITS)]
    rng.shuffle(codes)
    held_out_codes = set(codes[:12])
    everything = text()
    rng.shuffle(everything)
    test = [p for p in everything if p["sign"]["text"] in held_out_codes]
    sets["ocr_test"] = test[:48]
    sets["ocr_train"] = [p for p in everything if p["sign"]["text"] not in held_out_codes]
    return sets


def write(folder: Path, sets: dict[str, list[dict]]) -> None:
    """Write every set as ``<folder>/<name>.jsonl``, one prompt per line."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, prompts in sets.items():
        lines = "".join(json.dumps(p, sort_keys=True) + "\n" for p in prompts)
        (folder / f"{name}.jsonl").write_text(lines)
