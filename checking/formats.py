"""What somebody brings: a LoRA adapter in diffusers' or PEFT's format, a whole checkpoint, finished images.

Only safetensors are read. An adapter becomes a file in diffusers' format that says its scale, as this suite's
own adapters are.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open

from base_models.base import ADAPTER_FILE, POLICY
from base_models.pipelines import PipelineModel
from core.files import read_tensors
from training.image_folder import METADATA

Kind = Literal["adapter", "checkpoint", "images"]
PEFT_FILE, PEFT_CONFIG, PIPELINE = "adapter_model.safetensors", "adapter_config.json", "model_index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
PEFT_PREFIX, OURS = "base_model.model.", "transformer."
VALID = (
    "valid: an adapter (a .safetensors file, or a folder with one), a checkpoint (a folder with "
    f"{PIPELINE}), or images (a folder with {METADATA})"
)


class FormatError(ValueError):
    """What was brought cannot be judged; the message names the file and what is valid."""


def kind_of(path: Path) -> Kind:
    """Raises ``FormatError`` for anything else."""
    if path.suffix in PICKLES:
        raise FormatError(f"{path} is a pickle, which can run code; save it as safetensors. {VALID}")
    if path.is_dir():
        for file, kind in ((PIPELINE, "checkpoint"), (METADATA, "images")):
            if (path / file).is_file():
                return kind
    adapter_file(path)
    return "adapter"


def check_pipeline(path: Path, expected: str) -> None:
    """Raise ``FormatError`` for a checkpoint of another class of pipelines than the base model's."""
    file = path / PIPELINE
    try:
        found = json.loads(file.read_text(encoding="utf-8"))["_class_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{file} names no class of pipelines ({error})") from None
    if found != expected:
        raise FormatError(f"{file}: key '_class_name' is {found!r}; valid: {expected!r}")


def adapter_file(path: Path) -> Path:
    """The one safetensors file of an adapter. Raises ``FormatError``."""
    if path.is_file() and path.suffix == ".safetensors":
        return path
    found = sorted(path.glob("*.safetensors")) if path.is_dir() else []
    named = [file for file in found if file.name in (ADAPTER_FILE, PEFT_FILE)]
    if len(named) == 1 or len(found) == 1:
        return (named or found)[0]
    what = f"holds {len(found)} safetensors files" if path.is_dir() else "is none of these"
    raise FormatError(f"{path} {what if path.exists() else 'does not exist'}; {VALID}")


def convert(path: Path, folder: Path, model: PipelineModel) -> None:
    """Write the adapter to ``folder`` in diffusers' format. Raises ``FormatError``."""
    file, layers = adapter_file(path), _layers(model)
    try:
        with safe_open(file, "pt") as stream:
            keys = list(stream.keys())
    except (SafetensorError, OSError) as error:
        raise FormatError(f"{file} is no safetensors file ({error})") from None
    others = [key for key in keys if key.startswith("text_encoder")]
    if others:
        raise FormatError(
            f"{file} changes text encoders too ({others[0]}); an adapter of the transformer is judged"
        )
    folder.mkdir(parents=True, exist_ok=True)
    if not all(key.startswith(PEFT_PREFIX) for key in keys):  # a format that diffusers' loader reads
        shutil.copyfile(file, folder / ADAPTER_FILE)
        return
    config = _peft_config(file.with_name(PEFT_CONFIG))
    tensors = {}
    for key, value in read_tensors(file).items():
        name = key.removeprefix(PEFT_PREFIX).replace(".default.", ".").removeprefix(OURS)
        if name.partition(".lora_")[0] not in layers:
            raise FormatError(f"{file}: {key} belongs to no layer of {model.config.label}'s transformer")
        tensors[name] = value
    model.pipeline.save_lora_weights(
        folder, transformer_lora_layers=tensors, transformer_lora_adapter_metadata=config
    )


def _layers(model: PipelineModel) -> set[str]:
    return {name.replace(".base_layer", "") for name, _ in model.transformer.named_modules()}


def _peft_config(path: Path) -> dict:
    """Rank and scale, as PEFT wrote them beside its weights."""
    if not path.is_file():
        raise FormatError(f"{path} does not exist; it holds the scale of an adapter in PEFT's format")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if config["peft_type"] != "LORA":
            raise FormatError(f"{path}: key 'peft_type' is {config['peft_type']!r}; valid: 'LORA'")
        unread = [
            key for key in ("use_dora", "modules_to_save", "alora_invocation_tokens") if config.get(key)
        ]
        if unread:
            raise FormatError(f"{path}: key {unread[0]!r} is {config[unread[0]]!r}; valid: none")
        kept = (
            "r",
            "lora_alpha",
            "rank_pattern",
            "alpha_pattern",
            "use_rslora",
            "target_modules",
            "lora_bias",
        )
        return {key: config[key] for key in kept if config.get(key) not in (None, {})}
    except (ValueError, TypeError, KeyError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{path} is no configuration of PEFT ({error})") from None


@torch.no_grad()
def load(path: Path, folder: Path, model: PipelineModel) -> float:
    """Convert, load as the policy, and return the norm of its change of the weights over the weights' norm.

    Raises ``FormatError`` for an adapter of another model, and for one that has no effect: its scores would
    be the base model's.
    """
    convert(path, folder, model)
    try:
        model.load_lora(folder)
    except (ValueError, RuntimeError, KeyError, IndexError) as error:
        shown = " ".join(str(error).split())[:300]
        raise FormatError(f"{path} is no adapter of {model.config.label} ({shown})") from None
    changed = [m for m in model.transformer.modules() if POLICY in getattr(m, "lora_A", ())]
    if not changed:
        raise FormatError(f"{path} matches no layer of {model.config.label}'s transformer")
    deltas = sum(layer.get_delta_weight(POLICY).double().square().sum() for layer in changed)
    if not torch.isfinite(deltas):
        raise FormatError(f"{path}: its weights are not finite")
    if deltas == 0:
        raise FormatError(f"{path} has no effect: its change of all {len(changed)} layers is zero")
    weights = sum(layer.base_layer.weight.double().square().sum() for layer in changed)
    return (deltas / weights).sqrt().item()
