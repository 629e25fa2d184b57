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
from training.image_folder import METADATA, ImageFolder

Kind = Literal["adapter", "checkpoint", "images"]
PEFT_FILE, PEFT_CONFIG, PIPELINE = "adapter_model.safetensors", "adapter_config.json", "model_index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
PEFT_PREFIX, OURS = "base_model.model.", "transformer."
PARTS = tuple(
    f".{part}"
    for part in (
        *("lora_A.weight", "lora_B.weight", "lora_A.default.weight", "lora_B.default.weight"),
        *("lora_down.weight", "lora_up.weight", "lora.down.weight", "lora.up.weight", "alpha"),
    )
)
# Keys of PEFT's configuration that change an adapter and that nothing here applies.
UNREAD = (
    *("use_dora", "modules_to_save", "alora_invocation_tokens", "bias", "fan_in_fan_out"),
    *("target_parameters", "trainable_token_indices", "megatron_config", "eva_config"),
)
SCALE_METADATA = "lora_adapter_metadata"  # diffusers' key in the header of a file
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


def is_peft(keys: list[str]) -> bool:
    return all(key.startswith(PEFT_PREFIX) for key in keys)


def files_of(path: Path, kind: Kind) -> list[Path]:
    """Every file on which what was brought depends. Raises ``FormatError``."""
    if kind == "images":
        pictures = (file for found in ImageFolder(path).files.values() for file in found)
        return [path / METADATA, *sorted(set(pictures))]
    if kind == "checkpoint":
        return sorted(file for file in path.rglob("*") if file.suffix in (".safetensors", ".json"))
    file = adapter_file(path)
    config = file.with_name(PEFT_CONFIG)
    return [file, config] if config.is_file() and is_peft(_opened(file)[0]) else [file]


def convert(path: Path, folder: Path, model: PipelineModel, alpha: float | None = None) -> bool:
    """Write the adapter to ``folder`` in diffusers' format.

    ``alpha`` is for a file that does not say its own; without it such a file is applied at alpha = rank.
    Returns whether the scale is known, from the file or by ``alpha``. Raises ``FormatError``.
    """
    file = adapter_file(path)
    keys, metadata = _opened(file)
    _check_keys(file, keys)
    folder.mkdir(parents=True, exist_ok=True)
    if is_peft(keys):
        _only_where_unsaid(file, alpha, said=True)
        tensors = {
            key.removeprefix(PEFT_PREFIX).replace(".default.", ".").removeprefix(OURS): value
            for key, value in read_tensors(file).items()
        }
        _check_layers(file, tensors, model)
        config = _peft_config(file.with_name(PEFT_CONFIG))
        model.pipeline.save_lora_weights(
            folder, transformer_lora_layers=tensors, transformer_lora_adapter_metadata=config
        )
        return True
    # The loader's own reading, for it knows the names of several trainers.
    tensors = {
        key.removeprefix(OURS): value
        for key, value in model.pipeline.lora_state_dict(read_tensors(file)).items()
        if not key.endswith(".alpha")
    }
    _check_layers(file, tensors, model)
    said = _says_its_scale(file, keys, metadata)
    _only_where_unsaid(file, alpha, said)
    if alpha is None:
        shutil.copyfile(file, folder / ADAPTER_FILE)
        return said
    for name, value in tensors.items():
        if name.endswith("lora_B.weight"):  # (out, rank)
            tensors[name] = value * (alpha / value.shape[1])
    model.pipeline.save_lora_weights(folder, transformer_lora_layers=tensors)
    return True


def _opened(file: Path) -> tuple[list[str], dict[str, str]]:
    try:
        with safe_open(file, "pt") as stream:
            return list(stream.keys()), stream.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise FormatError(f"{file} is no safetensors file ({error})") from None


def _check_keys(file: Path, keys: list[str]) -> None:
    """What is not the two matrices of a LoRA would be dropped, and the scores be another adapter's."""
    if not keys:
        raise FormatError(f"{file} holds no tensors; {VALID}")
    for key in keys:
        if key.startswith(("text_encoder", "lora_te")):
            raise FormatError(
                f"{file} changes text encoders too ({key}); an adapter of the transformer is judged"
            )
        if "dora_scale" in key or "lora_magnitude_vector" in key:
            raise FormatError(
                f"{file} is a DoRA ({key}); valid: a LoRA, or the whole checkpoint with it merged"
            )
        if not key.endswith(PARTS):
            raise FormatError(f"{file}: {key} is no part of a LoRA; valid endings: {', '.join(PARTS)}")


def _check_layers(file: Path, tensors: dict[str, torch.Tensor], model: PipelineModel) -> None:
    """Every name is one of the two matrices of a layer that the base model has, and both are there."""
    layers = {name.replace(".base_layer", "") for name, _ in model.transformer.named_modules()}
    for name in tensors:
        layer, found, part = name.partition(".lora_")
        if not found or layer not in layers:
            kohya = "; it is named as kohya's trainers do, which the base model's loader does not read"
            raise FormatError(
                f"{file}: {name} belongs to no layer of {model.config.label}'s transformer"
                + kohya * name.startswith(("lora_unet", "lora_transformer"))
            )
        other = f"{layer}.lora_{'B' if part.startswith('A') else 'A'}.weight"
        if other not in tensors:
            raise FormatError(f"{file}: {name} is there and {other} is not; a LoRA has both")


def _says_its_scale(file: Path, keys: list[str], metadata: dict[str, str]) -> bool:
    """By ``.alpha`` tensors or by diffusers' metadata. Raises ``FormatError`` for metadata without it."""
    if any(key.endswith(".alpha") for key in keys):
        return True
    if SCALE_METADATA not in metadata:
        return False
    try:
        stored = json.loads(metadata[SCALE_METADATA])
        _check_settings(f"{file}, metadata", {key.removeprefix(OURS): value for key, value in stored.items()})
    except FormatError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise FormatError(
            f"{file}: its metadata {SCALE_METADATA!r} gives no rank and scale "
            f"({type(error).__name__}: {error}); valid: JSON with transformer.r and transformer.lora_alpha"
        ) from None
    return True


def _only_where_unsaid(file: Path, alpha: float | None, said: bool) -> None:
    if said and alpha is not None:
        raise FormatError(f"--alpha is {alpha:g}, but {file} says its own scale; valid: no --alpha")


def _check_settings(where: str, settings: dict) -> None:
    """PEFT's settings of a LoRA, in its file or in a header. Raises ``FormatError`` for what nothing applies,
    KeyError, TypeError or ValueError where rank or scale is no number."""
    unread = [key for key in UNREAD if settings.get(key) not in (None, False, "none", [], {})]
    if unread:
        raise FormatError(f"{where}: key {unread[0]!r} is {settings[unread[0]]!r}; valid: none")
    float(settings["lora_alpha"]), int(settings["r"])


def _peft_config(path: Path) -> dict:
    """Rank and scale, as PEFT wrote them beside its weights."""
    if not path.is_file():
        raise FormatError(f"{path} does not exist; it holds the scale of an adapter in PEFT's format")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if config["peft_type"] != "LORA":
            raise FormatError(f"{path}: key 'peft_type' is {config['peft_type']!r}; valid: 'LORA'")
        _check_settings(str(path), config)
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
def load(
    path: Path, folder: Path, model: PipelineModel, alpha: float | None = None
) -> dict[str, float | bool]:
    """Convert and load as the policy.

    Returns ``relative_change``, the norm of its change of the weights over the weights' norm, ``layers``, how
    many it changes, and ``scale_known``, whether the file or ``alpha`` says the scale.

    Raises ``FormatError`` for an adapter of another model, and for one that has no effect: its scores would
    be the base model's.
    """
    try:
        known = convert(path, folder, model, alpha)
        model.load_lora(folder)
    except FormatError:
        raise
    except (ValueError, RuntimeError, KeyError, IndexError, TypeError, AttributeError) as error:
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
    change = (deltas / weights).sqrt().item()
    return {"relative_change": change, "layers": len(changed), "scale_known": known}
