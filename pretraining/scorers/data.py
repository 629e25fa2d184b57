"""Scenes for the scorers: every prompt of the world, and captions that are wrong in one attribute."""

from __future__ import annotations

import random

import numpy as np
import torch
from tqdm import tqdm

from rewards.networks import TOKENIZER, CaptionTokenizer
from scenes import prompts as prompt_sets
from scenes.renderer import render
from scenes.vocabulary import BACKGROUNDS, CODE_DIGITS, CODE_LETTERS, COLOURS, NUMERALS, SHAPES, plural

# Scorers are judges, not policies: they may know the held-out prompts and ten and eleven objects.
TAG_SHARES = {
    "counting": 0.34,
    "text": 0.22,
    "single_object": 0.03,
    "two_object": 0.06,
    "colors": 0.05,
    "position": 0.16,
    "color_attr": 0.14,
}
MAX_COUNT = 11
WRONG_PER_CAPTION = 24
_OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
_SINGULAR = {plural(shape): shape for shape in SHAPES}


def sample_prompts(n: int, seed: int) -> list[dict]:
    """``n`` prompts of the world, tags drawn by ``TAG_SHARES``."""
    pools = {tag: build() for tag, build in prompt_sets.GENEVAL_TAGS.items()}
    pools |= {"counting": prompt_sets.counting(1, MAX_COUNT), "text": prompt_sets.text()}
    rng = random.Random(seed)
    tags = rng.choices(list(TAG_SHARES), weights=list(TAG_SHARES.values()), k=n)
    return [rng.choice(pools[tag]) for tag in tags]


def render_all(prompts: list[dict], seed: int) -> torch.Tensor:
    """uint8 (N, 3, H, W). Image i has the seed ``seed + i``."""
    bar = tqdm(prompts, desc="rendering", unit="scene", mininterval=2, disable=len(prompts) < 5000)
    images = np.stack([render(prompt, seed + i) for i, prompt in enumerate(bar)])
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


def scenes(n: int, seed: int) -> tuple[torch.Tensor, list[dict]]:
    """``n`` images uint8 (n, 3, H, W) and their prompts."""
    prompts = sample_prompts(n, seed)
    return render_all(prompts, seed), prompts


def to_float(images: torch.Tensor) -> torch.Tensor:
    """uint8 -> float in [0, 1]."""
    return images.float() / 255


# --- wrong captions ----------------------------------------------------------------------------------


def _replaced(words: list[str], *changes: tuple[int, str]) -> str:
    new = list(words)
    for i, word in changes:
        new[i] = word
    return " ".join(new)


def _recounted(words: list[str], at: int, count: int) -> str:
    """The numeral at ``at`` changed, and the noun after it made to agree."""
    new = [*words[:at], NUMERALS[count], *words[at + 1 :]]
    noun = next(i for i in range(at + 1, len(new)) if new[i] in SHAPES or new[i] in _SINGULAR)
    shape = _SINGULAR.get(new[noun], new[noun])
    new[noun] = shape if count == 1 else plural(shape)
    return " ".join(new)


def edits(caption: str) -> dict[str, list[str]]:
    """Captions that differ in one attribute and are false of every image of ``caption``, by attribute."""
    words = caption.split()
    found: dict[str, list[str]] = {}

    def add(attribute: str, wrong: str) -> None:
        found.setdefault(attribute, []).append(wrong)

    for i, word in enumerate(words):
        if word in NUMERALS:
            count = NUMERALS.index(word)
            for other in {count - 1, count + 1} & set(range(1, MAX_COUNT + 1)):
                add("count", _recounted(words, i, other))
        elif word in COLOURS:
            for other in COLOURS.keys() - {word}:
                add("color", _replaced(words, (i, other)))
        elif word in SHAPES or word in _SINGULAR:
            for other in SHAPES if word in SHAPES else _SINGULAR:
                if other != word:
                    add("shape", _replaced(words, (i, other)))
        elif word in _OPPOSITE:
            add("relation", _replaced(words, (i, _OPPOSITE[word])))
        elif word in BACKGROUNDS:
            for other in BACKGROUNDS.keys() - {word}:
                add("background", _replaced(words, (i, other)))
        elif word.startswith('"'):
            letter, digit = word.strip('"')
            for other in set(CODE_LETTERS) - {letter}:
                add("glyph", _replaced(words, (i, f'"{other}{digit}"')))
            for other in set(CODE_DIGITS) - {digit}:
                add("glyph", _replaced(words, (i, f'"{letter}{other}"')))
    colored = [i for i, word in enumerate(words) if word in COLOURS]
    if len(colored) == 2:
        i, j = colored
        add("swap", _replaced(words, (i, words[j]), (j, words[i])))
    if set(words) & _OPPOSITE.keys():
        i, j = (i for i, word in enumerate(words) if word in SHAPES)
        add("swap", _replaced(words, (i, words[j]), (j, words[i])))
    return {attribute: sorted(wrong) for attribute, wrong in found.items()}


class CaptionTable:
    """Token ids of captions and of their wrong variants, drawn evenly over the attributes.

    Args:
        captions: one for every image or clip, some of them alike.
        edits_of: each different caption -> its wrong variants by attribute.
    """

    def __init__(
        self,
        captions: list[str],
        edits_of: dict[str, dict[str, list[str]]],
        tokenizer: CaptionTokenizer,
    ):
        position = {caption: i for i, caption in enumerate(edits_of)}
        self.row = torch.tensor([position[caption] for caption in captions])
        self.ids = tokenizer(list(edits_of))
        rng, wrong = random.Random(0), []
        for by_attribute in edits_of.values():
            groups = list(by_attribute.values())
            wrong += [rng.choice(groups[k % len(groups)]) for k in range(WRONG_PER_CAPTION)]
        self.wrong_ids = tokenizer(wrong).view(len(edits_of), WRONG_PER_CAPTION, -1)

    def right(self, index: torch.Tensor) -> torch.Tensor:
        """long (B, L)."""
        return self.ids[self.row[index]]

    def wrong(self, index: torch.Tensor, k: int, generator: torch.Generator) -> torch.Tensor:
        """``k`` wrong captions each, long (B, k, L)."""
        table = self.wrong_ids[self.row[index]]
        drawn = torch.randint(table.shape[1], (len(index), k), generator=generator)
        return table.gather(1, drawn[..., None].expand(-1, -1, table.shape[-1]))


class Captions(CaptionTable):
    """Those of images."""

    def __init__(self, captions: list[str]):
        edits_of = {caption: edits(caption) for caption in dict.fromkeys(captions)}
        super().__init__(captions, edits_of, TOKENIZER)
        self.content = self._content(list(edits_of))

    @staticmethod
    def _content(captions: list[str]) -> torch.Tensor:
        """Bag of meaningful words, float (N, V); number and articles folded."""
        bags = torch.zeros(len(captions), len(TOKENIZER))
        plain = [" ".join(_SINGULAR.get(w, {"a": "one"}.get(w, w)) for w in c.split()) for c in captions]
        bags.scatter_(1, TOKENIZER(plain), 1.0)
        fillers = TOKENIZER(["and on"])[0]
        bags[:, fillers] = 0.0
        return bags

    def may_agree(self, index: torch.Tensor) -> torch.Tensor:
        """True where caption i may hold for image j: one says no more than the other. bool (B, B)."""
        bags = self.content[self.row[index]]
        shared, size = bags @ bags.T, bags.sum(1)
        return shared >= torch.minimum(size[:, None], size[None, :])
