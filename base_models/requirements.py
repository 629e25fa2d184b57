"""Whether the weights of a base model are on this machine.

Nothing is downloaded here and no network is asked: a job on a cluster node may have none. The hub gives
gated weights only to a token whose owner accepted their licence, so weights at hand settle all of it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from base_models.configuration import BaseModelConfig

# Components that hold weights; the others are small files of tokenizers, schedulers and processors.
_WEIGHTED = ("transformer", "vae", "text_encoder")
# Repositories also hold the same weights as one file at their root.
PIPELINE_FILES = ("model_index.json", "*/*")


def is_hub_id(path: str) -> bool:
    """``owner/name`` that is no folder here."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", path) is not None and not Path(path).exists()


def missing_weights(config: BaseModelConfig, pipeline_class: str) -> list[str]:
    """What is missing and how to get it, at most one line."""
    if not is_hub_id(config.path):
        folder = Path(config.path)
    elif config.revision is None:
        return [
            f"{config.label}: key 'path': {config.path} is no folder here; for a model of the hub, "
            "pin its commit in the key 'revision'"
        ]
    else:
        folder = _cached(config)
        if folder is None:
            return [f"{config.label}: {config.path} is not on this machine; {_fetch(config)}"]
    index = folder / "model_index.json"
    if not index.is_file():
        return [f"{config.label}: key 'path': {folder} holds no pipeline (no model_index.json)"]
    components = json.loads(index.read_text())
    if components["_class_name"] != pipeline_class:
        return [
            f"{config.label}: key 'pipeline' is {config.pipeline!r}, which opens {pipeline_class}; "
            f"{config.path} is a {components['_class_name']}"
        ]
    wanted = [
        n for n, c in components.items() if n.startswith(_WEIGHTED) and c[0] and n not in config.without
    ]
    absent = [path for name in wanted for path in _absent_weights(folder / name)]
    hint = _fetch(config) if is_hub_id(config.path) else "copy the whole pipeline"
    return [f"{config.label}: {absent[0]} is missing; {hint}"] if absent else []


def _absent_weights(folder: Path) -> list[Path]:
    """Weight files that a component lacks: shards of its index, or any safetensors file at all."""
    indices = list(folder.glob("*.safetensors.index.json"))
    shards = {s for i in indices for s in json.loads(i.read_text())["weight_map"].values()}
    if shards:
        return [folder / shard for shard in sorted(shards) if not (folder / shard).is_file()]
    return [] if any(folder.glob("*.safetensors")) else [folder / "*.safetensors"]


def _fetch(config: BaseModelConfig) -> str:
    from huggingface_hub import get_token

    login = "" if get_token() else "then hf auth login (no token is set), "
    return (
        f"accept its licence ({config.licence}) on https://huggingface.co/{config.path}, {login}"
        f"then hf download {config.path} --revision {config.revision} "
        + " ".join(f"--include {pattern!r}" for pattern in PIPELINE_FILES)
    )


def _cached(config: BaseModelConfig) -> Path | None:
    """The snapshot of the pinned revision in the hub's cache, if it is whole."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        snapshot = snapshot_download(
            config.path, revision=config.revision, local_files_only=True, allow_patterns=PIPELINE_FILES
        )
    except LocalEntryNotFoundError:
        return None
    return Path(snapshot)
