"""Which prompts an iteration trains on, and their embeddings."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from tqdm import tqdm

from base_models.base import BaseModel, Embeddings
from core.prompts import read
from core.seeding import seed_of
from training.first_frames import embed, identities
from training.ranks import Ranks


def _room(file: Path, count: int, like: torch.Tensor) -> torch.Tensor:
    """Room for ``count`` embeddings in a file.

    50,000 prompts of SD3.5 take 85 GB, more than a process may hold; the pages of a file can leave memory.
    The memory outlives the file's name.
    """
    shape = torch.Size((count, *like.shape[1:]))
    needed, free = shape.numel() * like.element_size(), shutil.disk_usage(file.parent).free
    if not file.exists() and needed > free:  # a full disk would kill the process without a word
        raise ValueError(
            f"embeddings of {count} prompts need {needed / 1e9:.1f} GB in {file.parent.parent}, "
            f"{free / 1e9:.1f} GB are free; TMPDIR or {KEPT} names another folder"
        )
    return torch.from_file(str(file), shared=True, size=shape.numel(), dtype=like.dtype).view(shape)


KEPT = "GOODHART_EMBEDDINGS"  # environment: a folder in which embeddings stay


@contextmanager
def _folder(model: BaseModel, prompts: list, ranks: Ranks | None) -> Iterator[Path]:
    """Where the embeddings of ``prompts`` (their ``identities``) lie while they are opened: gone after the
    block, or kept where ``KEPT`` says."""
    if not os.environ.get(KEPT) or model.config.revision is None:  # no commit: the weights may change
        with ranks.node_folder() if ranks else tempfile.TemporaryDirectory() as name:
            yield Path(name)
        return
    identity = json.dumps([prompts, model.config.model_dump(mode="json")], sort_keys=True)
    folder = Path(os.environ[KEPT]) / hashlib.sha256(identity.encode()).hexdigest()[:32]
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    yield folder
    if ranks:
        ranks.wait()


class PromptList:
    """Training prompts by tag, of which every iteration draws some."""

    def __init__(self, prompts: list[dict], tag_weights: dict[str, float]):
        self.prompts, self.tag_weights = prompts, tag_weights
        self.by_tag: dict[str, list[int]] = {}
        for index, prompt in enumerate(prompts):
            self.by_tag.setdefault(prompt["tag"], []).append(index)

    def draw(self, count: int, seed: int, iteration: int) -> list[int]:
        """``count`` different prompt indices for one iteration, tags drawn by their weights."""
        rng = random.Random(seed_of("prompts", seed, iteration))
        if not self.tag_weights:
            return rng.sample(range(len(self.prompts)), count)
        tags, weights = zip(*self.tag_weights.items(), strict=True)
        known = sum(len(self.by_tag[tag]) for tag, weight in self.tag_weights.items() if weight > 0)
        if count > known:
            raise ValueError(f"prompts_per_iteration is {count}, but the drawn tags have {known} prompts")
        chosen: list[int] = []
        while len(chosen) < count:
            index = rng.choice(self.by_tag[rng.choices(tags, weights)[0]])
            if index not in chosen:
                chosen.append(index)
        return chosen


class PromptSet(PromptList):
    """Training prompts with embeddings computed once per node, a share by each of its processes.

    Where those of a model of the hub are kept (``KEPT``), all runs of the same prompts use them, and an
    interrupted run goes on with what is missing.
    """

    def __init__(
        self,
        path: Path,
        tag_weights: dict[str, float],
        model: BaseModel,
        batch: int = 256,
        ranks: Ranks | None = None,
    ):
        super().__init__(read(path), tag_weights)
        self.path = Path(path)
        self.identities = identities(self.path, self.prompts)
        first = ranks is None or ranks.first_of_node
        with _folder(model, self.identities, ranks) as folder:
            if first:
                self.embeddings = self._rooms(folder, model)
            if ranks:
                ranks.wait()
            if not first:
                self.embeddings = self._rooms(folder, model)
            self._embed(model, batch, *(ranks.on_node if ranks else (0, 1)))
            if ranks:
                ranks.wait()
        self.empty = (
            model.encode_prompts([model.unconditional_prompt]) if model.classifier_free_guidance else None
        )

    def _embed(self, model: BaseModel, batch: int, own: int, count: int) -> None:
        """Every ``count``-th batch from ``own`` on; batches are the same for any number of ranks."""
        starts = range(0, len(self.prompts), batch)[own::count]
        *_, last = self.embeddings.tensors.values()
        for start in tqdm(starts, desc="embedding prompts", unit="batch", delay=5, disable=own != 0):
            rows = slice(start, start + batch)
            # Written last, and zero until then. A true zero there costs no more than to embed it again.
            if (last[rows].flatten(1)[:, -1] != 0).all():
                continue
            for name, values in embed(model, self.prompts[rows], self.path).tensors.items():
                self.embeddings.tensors[name][rows] = values

    def _rooms(self, folder: Path, model: BaseModel) -> Embeddings:
        example, count = embed(model, self.prompts[:1], self.path).tensors, len(self.prompts)
        return Embeddings({name: _room(folder / name, count, like) for name, like in example.items()})
