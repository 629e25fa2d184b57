"""Trainers for measurements: the default grid's settings, opened without its folders."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from runs.resolve import resolve_run
from training.data import real_latents, save, synthetic_latents
from training.prompts import PromptSet
from training.trainer import Trainer

BASE, TASK = "tiny-sd3", "ocr"
# The positions that tiny-sd3 knows end at 32 pixels; those of a FLUX are rotations, which never end.
RESOLUTION_MODEL = "tiny-flux"
EXACT = {"merged_dtype": None}  # no bf16: what two loops compute can be compared


def open_trainer(
    method: str,
    device: str = "cpu",
    task: str = TASK,
    base: dict | None = None,
    base_model: str = BASE,
    **training,
) -> Trainer:
    """A trainer of one method with the settings of task and base model; ``training`` and ``base`` replace
    some of them."""
    run = resolve_run(base_model, task, method, 1, {"training": training})
    changed = run.base_model.model_copy(update=base or {})
    # Where a run starts from does not change its cost.
    run = run.model_copy(update={"base_model": changed, "start": None})
    with TemporaryDirectory() as folder:
        data = Path(folder) / "data.safetensors" if run.training.data != "none" else None
        if data:
            make_data(run, data, device)
        return Trainer(run, Path(folder), data=data, device=device)


def make_data(run, path: Path, device: str) -> None:
    from base_models import open_base_model

    model = open_base_model(run.base_model, device)
    prompts = PromptSet(Path(run.task_settings.prompts), run.task_settings.tag_weights, model)
    make = {"synthetic": synthetic_latents, "real": real_latents}[run.training.data]
    save(path, make(model, prompts, 1, batch=64), prompts, 1)
