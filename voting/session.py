"""What is voted on: pairs of images of one prompt and one initial noise from two methods' finished runs.

``session.json`` names the methods and is read by the server and by the count. Votes name pairs alone.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from core.files import write_json
from core.prompts import read as read_prompts
from core.settings import ConfigError
from evaluation import images
from evaluation.configuration import load_evaluation
from runs.config_files import load_task
from runs.configuration import RunConfig, load_run

SESSION = "session.json"
SIDES = ("left", "right")


@dataclass(frozen=True)
class Pair:
    """Two images. ``first`` and ``second`` are run folders, ``method_a`` and ``method_b`` their methods."""

    pair: str
    base: str
    task: str
    suite: str
    seed: int
    prompt: int
    image: int
    text: str
    first: str
    second: str
    first_step: int
    second_step: int
    method_a: str
    method_b: str
    frames_per_second: int = 1  # of clips

    def shown(self, voter: str) -> tuple[str, str]:
        """Which of first and second stands left and right for a voter: by chance, and always the same."""
        first_left = hashlib.sha256(f"{self.pair} {voter}".encode()).digest()[0] % 2
        return ("first", "second") if first_left else ("second", "first")

    def file(self, which: str) -> Path:
        run, step = getattr(self, which), getattr(self, f"{which}_step")
        return images.path_of(Path(run) / "images", self.suite, step)


@dataclass(frozen=True)
class Session:
    """Pairs by name, in the order of the first voter."""

    pairs: dict[str, Pair]

    def order(self, voter: str) -> list[Pair]:
        """Each voter's own order, so that the first pairs are not all votes go to."""
        found = list(self.pairs.values())
        random.Random(f"order of {voter}").shuffle(found)
        return found


def runs_of(
    folder: Path, base: str, task: str, methods: list[str]
) -> dict[tuple[str, int], tuple[Path, RunConfig]]:
    """Finished runs with images, by method and seed. Raises ``ConfigError`` where a method has none."""
    found = {}
    for path in sorted(folder.glob(f"{base}__{task}__*/run.yaml")):
        run = load_run(path.parent)
        if run.method in methods and (path.parent / "images").is_dir():
            found[run.method, run.seed] = path.parent, run
    for method in methods:
        if not any(name == method for name, _ in found):
            kept = folder.glob(f"{base}__{task}__*/images/*.parquet")
            there = sorted({path.parent.parent.name.split("__")[2] for path in kept})
            raise ConfigError(
                f"{folder} holds no images of {method!r} on {base}, {task}; "
                f"valid: {', '.join(there) or 'none'}"
            )
    return found


def make(
    folder: Path, base: str, task: str, methods: list[str], per_prompt: int, rivals: list[str] | None = None
) -> Session:
    """Every two of ``methods``, or each with each of ``rivals``, on the task's own suite and common seeds.

    Args:
        per_prompt: images of each prompt that are compared.
    """
    suite = load_task(task).suites[0]
    prompts = read_prompts(Path(load_evaluation().suites[suite].prompts))
    runs = runs_of(folder, base, task, [*methods, *(rivals or [])])
    couples = itertools.product(methods, rivals) if rivals else itertools.combinations(methods, 2)
    pairs = {}
    for a, b in couples:
        seeds = sorted({s for m, s in runs if m == a} & {s for m, s in runs if m == b})
        if a == b or not seeds:
            raise ConfigError(f"{a!r} and {b!r} have no two runs of one seed on {base}, {task}")
        for seed in seeds:
            (first, one), (second, other) = runs[a, seed], runs[b, seed]
            for prompt, image in itertools.product(range(len(prompts)), range(per_prompt)):
                name = secrets.token_hex(6)
                steps = one.training.iterations, other.training.iterations
                where = (base, task, suite, seed, prompt, image, prompts[prompt]["prompt"])
                rate = one.base_model.clip.frames_per_second if one.base_model.clip else 1
                pairs[name] = Pair(name, *where, str(first), str(second), *steps, a, b, rate)
    session = Session(pairs)
    for file in {pair.file(which) for pair in pairs.values() for which in ("first", "second")}:
        if images.per_prompt(file) < per_prompt:
            raise ConfigError(
                f"{file} holds {images.per_prompt(file)} images of a prompt; {per_prompt} are wanted"
            )
    return session


def save(session: Session, folder: Path) -> None:
    write_json(folder / SESSION, {"pairs": [asdict(pair) for pair in session.pairs.values()]})


def load(folder: Path) -> Session:
    """Raises ``ConfigError`` for a folder without a whole session."""
    path = folder / SESSION
    try:
        pairs = [Pair(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))["pairs"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is no session of votes ({error})") from None
    return Session({pair.pair: pair for pair in pairs})
