"""How much of a test set is trained: the same text, or the same composition in other words."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path

from core.prompts import FIRST_FRAME, read
from prompt_sets.configuration import FOLDER, names
from prompt_sets.counting import GENERATED
from prompt_sets.fetch import PromptSetError
from prompt_sets.parsers import PARSERS
from scenes.composition import composition, words

EXAMPLES = 3  # shown for each tag


@dataclass
class Overlap:
    """Of the test prompts with one tag. ``examples`` are pairs of a test prompt and a trained one."""

    prompts: int = 0
    same_text: int = 0
    same_composition: int = 0
    examples: list[tuple[str, str]] = field(default_factory=list)


def _plain(prompt: dict) -> Hashable:
    """The text, and the frame that it goes on from."""
    return " ".join(prompt["prompt"].casefold().split()), prompt.get(FIRST_FRAME)


def _wanted(prompt: dict) -> list[Hashable]:
    """The composition, and the words for sets whose prompts come without metadata."""
    return [composition(prompt), ("words", words(prompt["prompt"]), prompt.get(FIRST_FRAME))]


def overlap(train: list[dict], test: list[dict]) -> dict[str, Overlap]:
    """What the test set shares with the training set, by tag of the test prompts.

    Args:
        train, test: prompt dicts of ``scenes.prompts`` or of a published set.

    Returns:
        Counts of test prompts. ``same_text`` ignores case and white space; ``same_composition`` ignores
        wording as well (``scenes.composition``) and counts the former too.
    """
    texts = {_plain(prompt) for prompt in train}
    trained: dict[Hashable, str] = {}
    for prompt in train:
        for wanted in _wanted(prompt):
            trained.setdefault(wanted, prompt["prompt"])
    found: dict[str, Overlap] = {}
    for prompt in test:
        of_tag = found.setdefault(prompt["tag"], Overlap())
        of_tag.prompts += 1
        of_tag.same_text += _plain(prompt) in texts
        same = [trained[wanted] for wanted in _wanted(prompt) if wanted in trained]
        of_tag.same_composition += bool(same)
        if same and len(of_tag.examples) < EXAMPLES:
            of_tag.examples.append((prompt["prompt"], same[0]))
    return found


def _parse_text(path: Path) -> list[dict]:
    """A published file as it was downloaded: a JSON list, or a prompt a line, quoted where all lines are."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        return PARSERS["json_list"](text)
    try:
        return PARSERS["quoted_lines"](text)
    except ValueError:
        return PARSERS["lines"](text)


def open_set(place: str) -> list[dict]:
    """Prompts of a file (``.jsonl``, ``.json`` or ``.txt``) or of a set by name; writes and fetches nothing.

    Raises ``PromptSetError`` naming the file or set.
    """
    path = Path(place)
    if place in names():
        path = FOLDER / f"{place}.jsonl"
        if not path.exists():
            if place in GENERATED:
                return GENERATED[place]()
            raise PromptSetError(
                f"prompt set {place!r} is not here yet: python -m prompt_sets make {place} --out {path}"
            )
    elif not path.is_file():
        raise PromptSetError(f"{place!r} is neither a file nor a prompt set; sets: {', '.join(names())}")
    try:
        prompts = read(path) if path.suffix == ".jsonl" else _parse_text(path)
    except ValueError as error:
        raise PromptSetError(str(error) if str(path) in str(error) else f"{path}: {error}") from None
    for number, prompt in enumerate(prompts, start=1):
        try:
            composition(prompt)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise PromptSetError(f"{path}: prompt {number} has no GenEval metadata ({error!r})") from None
    return prompts


def table(found: dict[str, Overlap]) -> str:
    """One line per tag and one for all, then examples."""
    everything = Overlap(
        *(
            sum(getattr(o, key) for o in found.values())
            for key in ("prompts", "same_text", "same_composition")
        )
    )
    width = max(map(len, [*found, "all"]))
    lines = [f"{'tag':{width}}  test prompts  same text  same composition"]
    for tag, o in [*found.items(), ("all", everything)]:
        lines.append(f"{tag:{width}}  {o.prompts:12}  {o.same_text:9}  {o.same_composition:16}")
    for tag, o in found.items():
        lines += [f"{tag}: tested {test!r}, trained {train!r}" for test, train in o.examples]
    return "\n".join(lines)
