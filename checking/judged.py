"""A run folder for what somebody brings, and the base model's beside it, evaluated alike."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

import base_models
from base_models import open_base_model
from checking.formats import FormatError, Kind, check_pipeline, files_of, kind_of, load
from core.files import sha256, to_yaml, write_json, write_text
from core.prompts import read as read_prompts
from core.settings import ConfigError, check_name, read_yaml
from evaluation import images
from evaluation.configuration import RunEvaluation, load_evaluation, run_evaluation
from evaluation.evaluate import evaluate_run
from evaluation.media import check_media
from evaluation.sample import measures_file, sample_run
from evaluation.score import score_run
from evaluation.scores import KL
from runs.config_files import load_task, method_names
from runs.configuration import RunConfig
from runs.resolve import resolve_run
from training import provenance
from training.image_folder import ImageFolder, load_square
from training.trainer import Trainer

RESULTS = Path("results")


@dataclass(frozen=True)
class Check:
    """``path`` on a base model and task. ``name`` is the method's name in tables."""

    path: Path
    base: str
    task: str
    name: str
    seed: int
    images_per_prompt: int | None
    device: str
    configfile: Path | None = None  # a main config whose evaluation has the task's suites
    alpha: float | None = None  # of an adapter whose file does not say it

    def __post_init__(self):
        try:
            check_name(self.name)
        except ValueError as error:
            raise ConfigError(f"--name: {error}") from None
        if self.name in method_names():
            raise ConfigError(f"--name is {self.name!r}, a row of config/methods; valid: another name")
        if self.alpha is not None and self.kind != "adapter":
            raise ConfigError(f"--alpha is {self.alpha:g}, but {self.path} is no adapter; valid: no --alpha")

    @property
    def kind(self) -> Kind:
        return kind_of(self.path)

    @property
    def run(self) -> str:
        return f"{self.base}__{self.task}__{self.name}__s{self.seed}"

    @property
    def folder(self) -> Path:
        """An ordinary run folder: tables take it as they take others."""
        return RESULTS / "runs" / self.run

    @cached_property
    def plain(self) -> RunConfig:
        """The base row, which what was brought is judged beside."""
        return resolve_run(self.base, self.task, "base", self.seed, {})

    @property
    def report(self) -> Path:
        return RESULTS / "checks" / self.run

    def settings(self) -> RunEvaluation:
        over = {}
        if self.configfile is not None:
            over = read_yaml(self.configfile).get("evaluation") or {}
            if not isinstance(over, dict):
                raise ConfigError(f"{self.configfile}: key 'evaluation' is {over!r}; valid: a mapping")
        if self.images_per_prompt is not None:
            over["images_per_prompt"] = self.images_per_prompt
        if self.kind == "images":
            files = ImageFolder(self.path).files.values()
            over["images_per_prompt"] = self.images_per_prompt or min(map(len, files))
        evaluation, task = load_evaluation(over), load_task(self.task)
        absent = [suite for suite in task.suites if suite not in evaluation.suites]
        if absent:
            raise ConfigError(
                f"task {self.task!r} is evaluated on {', '.join(absent)}, not among the suites "
                f"{', '.join(evaluation.suites)}; name the main config that has them, such as "
                "--configfile config/paper.yaml"
            )
        check_media({self.run: self.plain}, {self.task: task}, evaluation)
        settings = run_evaluation(evaluation, task)
        if self.kind == "images":  # they were made for the prompts of one suite
            settings = settings.model_copy(update={"suites": {settings.own: settings.suites[settings.own]}})
        return settings

    def evaluate(self) -> tuple[Path, Path]:
        """Run folders of the base model and of what was brought, evaluated on the same prompts and noise."""
        settings, plain = self.settings(), self.plain
        if self.kind == "checkpoint":
            check_pipeline(self.path, base_models.get_class(plain.base_model.pipeline).pipeline_class)
        config = self.config()
        self.prepare(config)
        base = self.report / "base"
        write_text(self.report / "evaluation.yaml", to_yaml(settings.model_dump(mode="json")))
        for folder, run in ((base, plain), (self.folder, config)):
            write_text(folder / "run.yaml", to_yaml(run.content()))
        Trainer(plain, base, device=self.device).run()  # of no iterations: the adapter that changes nothing
        for folder in (base, self.folder):
            if folder == self.folder and self.kind != "adapter":
                self.evaluate_other(config, settings)
            else:
                evaluate_run(folder, self.report / "evaluation.yaml", *outputs(folder), self.device)
        return base, self.folder

    def config(self) -> RunConfig:
        """The base row's settings under this name; its hash and weights are those of what was brought."""
        folder = self.path if self.path.is_dir() else self.path.parent
        brought = {
            f"checked/{os.path.relpath(file, folder)}": sha256(file)
            for file in files_of(self.path, self.kind)
        }
        plain = self.plain
        model = plain.base_model
        if self.kind == "checkpoint":
            model = model.model_copy(update={"path": str(self.path), "revision": None})
        changes = {"run": self.run, "method": self.name, "base_model": model}
        identity = json.dumps([plain.hash, brought, self.alpha], sort_keys=True)
        digest = hashlib.sha256(identity.encode()).hexdigest()
        return plain.model_copy(update={**changes, "weights": plain.weights | brought, "hash": digest})

    def prepare(self, config: RunConfig) -> None:
        """A clean folder with the adapter in diffusers' format and where it came from."""
        mark = self.folder / "provenance.json"
        if mark.exists():
            if json.loads(mark.read_text())["config_hash"] == config.hash:
                return
            earlier = json.loads(mark.read_text()).get("checked")
            if earlier is None:
                raise ConfigError(f"{self.folder} is a run that was trained here; --name must be another")
            if Path(earlier["path"]).resolve() != self.path.resolve():
                raise ConfigError(
                    f"--name {self.name!r} is that of a check of {earlier['path']}; valid: another name, or "
                    f"the same after {self.folder} is removed"
                )
            shutil.rmtree(self.folder)
        record = {"checked": {"path": str(self.path), "kind": self.kind}}
        if self.kind == "adapter":
            model = open_base_model(config.base_model, self.device)
            try:
                record["checked"] |= load(self.path, self.folder / "adapter", model, self.alpha)
            except FormatError:
                shutil.rmtree(self.folder, ignore_errors=True)
                raise
        record |= {
            "files": provenance.digests(self.folder) if self.kind == "adapter" else {},
            "run": config.run,
            "seed": config.seed,
            "config_hash": config.hash,
            "git": provenance.git_state(),
            "packages": provenance.packages(),
            "hardware": provenance.hardware(),
            "weights_sha256": config.weights,
        }
        write_json(mark, record)

    def evaluate_other(self, config: RunConfig, settings: RunEvaluation) -> None:
        """A checkpoint is sampled as a base model is, without a KL from another; images are there already."""
        found = self.folder / "images"
        if self.kind == "checkpoint":
            record = (self.folder / "provenance.json").read_text()
            Trainer(config, self.folder, device=self.device).run()
            write_text(self.folder / "provenance.json", record)
            sample_run(self.folder, config, settings, self.device)
            stored = json.loads(measures_file(found, 0).read_text())
            stored["measured"].pop(KL, None)
            write_json(measures_file(found, 0), stored)
        else:
            self.take_images(config, settings)
        score_run(self.folder, config, settings, *outputs(self.folder))

    def take_images(self, config: RunConfig, settings: RunEvaluation) -> None:
        suite, k, side = settings.own, settings.images_per_prompt, config.base_model.image_size
        prompts = read_prompts(Path(settings.suites[suite].prompts))
        files = ImageFolder(self.path).wanted(prompts, k)
        made_from = config.hash
        path = images.path_of(self.folder / "images", suite, 0)
        if images.made_from(path) != made_from:
            pixels = (_pixels(file, side) for file in files)
            images.write(path, pixels, k=k, suite=suite, step=0, made_from=made_from)
        write_json(
            measures_file(self.folder / "images", 0), {"made_from": made_from, "step": 0, "measured": {}}
        )


def outputs(folder: Path) -> tuple[Path, Path]:
    return folder / "scores.parquet", folder / "image_scores.parquet"


def _pixels(file: Path, side: int) -> np.ndarray:
    """uint8 (side, side, 3). Raises ``FormatError`` for another size: scaling would change scores."""
    with Image.open(file) as opened:
        if opened.size != (side, side):
            raise FormatError(
                f"{file} has {opened.size[0]} x {opened.size[1]} pixels; valid: {side} x {side}"
            )
    return (load_square(file, side) * 255).round().byte().permute(1, 2, 0).numpy()
