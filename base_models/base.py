"""What training and evaluation may ask of a base model; one plug-in file per pipeline class.

Nothing here asks whether a model is tiny. The policy is a LoRA adapter named ``policy`` on the
pipeline's transformer; copies of it (``reference``, ``old``, ``ema``) are further adapters.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from safetensors.torch import load_file

from base_models.configuration import BaseModelConfig
from base_models.cpu_engine import MergedTransformer, has_bf16, merged_weights, plain_copy
from core.media import Medium

POLICY = "policy"
ADAPTER_FILE = "pytorch_lora_weights.safetensors"
CONDITION = "condition"  # in embeddings: latents of the first frames that are given


@dataclass
class Embeddings:
    """Of n prompts: tensors (n, ...) by the name of the transformer's argument, as ``encode_prompts`` of a
    base model makes them. Index it with a long or boolean tensor.

    They stay on the CPU: 205 tokens of 4096 bf16 numbers are 1.7 MB, so the prompts of a whole task would
    fill a device. ``BaseModel.predict`` moves the rows it is given.
    """

    tensors: dict[str, torch.Tensor]

    def __getitem__(self, index: torch.Tensor) -> Embeddings:
        return Embeddings({name: values[index.to(values.device)] for name, values in self.tensors.items()})

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def expand(self, count: int) -> Embeddings:
        """One prompt's, ``count`` times."""
        return Embeddings({name: v.expand(count, *v.shape[1:]) for name, v in self.tensors.items()})

    def to(self, device: torch.device, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """Arguments of a transformer there and of that precision."""
        return {name: values.to(device, dtype) for name, values in self.tensors.items()}

    @staticmethod
    def join(parts: Iterable[Embeddings]) -> Embeddings:
        """The prompts of all parts, in order."""
        tensors = [part.tensors for part in parts]
        return Embeddings({name: torch.cat([t[name] for t in tensors]) for name in tensors[0]})


class BaseModel(ABC):
    """A pipeline, its LoRA adapters and the few things one does with them."""

    name: ClassVar[str]
    medium: ClassVar[Medium] = "image"  # what it makes of a prompt
    takes_first_frames: ClassVar[bool] = False  # whether a clip may be given its first ones: ``conditioned``
    transformer: torch.nn.Module  # with the adapters
    network: torch.nn.Module | MergedTransformer  # what ``predict`` runs

    def __init__(self, config: BaseModelConfig, device: torch.device | str = "cpu"):
        self.config = config
        self.device = torch.device(device)
        self.dtype = getattr(torch, config.dtype)
        self.merged_dtype: torch.dtype | None = None  # of the copy that ``using`` runs on
        if config.merged_dtype:
            wanted = getattr(torch, config.merged_dtype)
            self.merged_dtype = wanted if has_bf16(self.device) else torch.float32
        self._plain: torch.nn.Module | None = None

    @classmethod
    def missing(cls, config: BaseModelConfig, *, gpu: bool) -> list[str]:
        """What keeps ``config`` from being opened, one line each; empty where nothing does.

        Args:
            gpu: whether it will be opened on one.
        """
        return [f"{config.label} needs a GPU, and torch finds none"] if config.needs_gpu and not gpu else []

    # --- what each pipeline class must say -------------------------------------------------------

    @property
    @abstractmethod
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of one latent, without the batch: (C, H, W), or of any other rank."""

    @property
    def classifier_free_guidance(self) -> bool:
        """Whether ``velocity`` needs the embedding of the empty prompt."""
        return self.config.guidance_scale > 1

    @abstractmethod
    def encode_prompts(self, prompts: list[str]) -> Embeddings:
        """Embed prompts without gradient. Raises ``RuntimeError`` once the text encoders are released."""

    @abstractmethod
    def release_text_encoders(self) -> None:
        """Free the memory of the text encoders, once all prompts are embedded."""

    @abstractmethod
    def sigmas(self, steps: int) -> torch.Tensor:
        """The scheduler's noise shares, float32 (steps + 1,), from 1 or a little less down to 0."""

    @abstractmethod
    def predict(self, x: torch.Tensor, sigma: torch.Tensor, embeddings: Embeddings) -> torch.Tensor:
        """One forward pass of the transformer: velocity (B, ...) at x (B, ...), sigma (B,)."""

    @abstractmethod
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents -> media of ``medium``, float32 (N, 3, H, W) or (N, F, 3, H, W) in [0, 1]."""

    @abstractmethod
    def encode(self, media: torch.Tensor) -> torch.Tensor:
        """Media as ``decode`` gives them -> normalised latents (N, ...)."""

    @abstractmethod
    def save_lora(self, folder: Path, layers: dict[str, torch.Tensor]) -> None:
        """Write ``layers`` in the diffusers LoRA format into ``folder``."""

    @abstractmethod
    def load_lora(self, folder: Path) -> None:
        """Load a saved adapter as the policy, through the pipeline's own loader."""

    @property
    def unconditional_prompt(self) -> str:
        """What guidance leads away from."""
        return ""

    def unconditional(self, empty: Embeddings, embeddings: Embeddings) -> Embeddings:
        """``empty``, one row, for every row of ``embeddings``."""
        return empty.expand(len(embeddings))

    def guided(self, conditional: torch.Tensor, unconditional: torch.Tensor) -> torch.Tensor:
        """u + g (c - u) of two velocities."""
        return unconditional + self.config.guidance_scale * (conditional - unconditional)

    def conditioned(self, embeddings: Embeddings, media: torch.Tensor) -> Embeddings:
        """Prompts (n) with the first frames of their clips, (n, F', 3, H, W) in [0, 1]."""
        raise ValueError(f"{self.config.label} cannot be given the first frame of a clip")

    def held(self, latents: torch.Tensor, embeddings: Embeddings) -> torch.Tensor:
        """Latents (n, ...) of data with the frames that ``embeddings`` give, so that a diffusion loss is 0
        there, however a file has compressed them."""
        return latents

    # --- shared ----------------------------------------------------------------------------------

    def velocity(
        self, x: torch.Tensor, sigma: torch.Tensor, embeddings: Embeddings, empty: Embeddings | None = None
    ) -> torch.Tensor:
        """Velocity, with classifier-free guidance where the model uses it.

        Args:
            empty: embedding of ``unconditional_prompt``, one row; needed for guidance only.
        """
        if not self.classifier_free_guidance:
            return self.predict(x, sigma, embeddings)
        both = Embeddings.join([self.unconditional(empty, embeddings), embeddings])
        unconditional, conditional = self.predict(torch.cat([x, x]), torch.cat([sigma, sigma]), both).chunk(2)
        return self.guided(conditional, unconditional)

    @contextmanager
    def using(self, adapter: str | None = POLICY) -> Iterator[None]:
        """Inside, ``velocity`` runs with this adapter, or with the bare base model for None.

        Where ``merged_dtype`` is set, it runs on a copy with the adapter merged, whose gradients reach the
        adapter. On a processor with bf16 instructions that halves the cost of rollouts and of updates; in
        float32, without them, it saves a sixth.
        Outside of every block it runs on the policy's LoRA layers as they are.
        """
        before = self.network, self.dtype
        if self.merged_dtype:
            self.dtype = self.merged_dtype
            self.network = self._merged(adapter)
        else:
            self._activate(adapter)
        try:
            yield
        finally:
            self.network, self.dtype = before
            if not self.merged_dtype:
                self._activate(POLICY)

    def _activate(self, adapter: str | None) -> None:
        if not getattr(self.transformer, "peft_config", None):
            return
        if adapter is None:
            self.transformer.disable_adapters()
        else:
            self.transformer.enable_adapters()
            self.transformer.set_adapter(adapter)

    def _merged(self, adapter: str | None) -> MergedTransformer:
        if self._plain is None:
            self._plain = plain_copy(self.transformer, self.dtype, self.device)
        return MergedTransformer(self._plain, merged_weights(self.transformer, adapter, self.dtype))

    def add_adapter(self, name: str = POLICY) -> None:
        """Add a LoRA adapter with B = 0, so that the model is unchanged, and make it active."""
        from peft import LoraConfig

        lora = self.config.lora
        self.transformer.add_adapter(
            LoraConfig(
                r=lora.rank,
                lora_alpha=lora.alpha,
                init_lora_weights="gaussian",
                target_modules=list(lora.target_modules),
            ),
            adapter_name=name,
        )
        for parameter in self.adapter_parameters(name).values():
            parameter.data = parameter.data.float()  # an optimiser step of 1e-4 is lost in bf16

    def adapter_parameters(self, name: str = POLICY) -> dict[str, torch.nn.Parameter]:
        """Trainable tensors of one adapter by name, in a fixed order, without the adapter's name."""
        marker = f".{name}."
        return {
            key.replace(marker, "."): p
            for key, p in self.transformer.named_parameters()
            if marker in key and "lora_" in key
        }

    @torch.no_grad()
    def read_adapter(self, folder: Path) -> None:
        """Copy a saved adapter into the policy. Raises ``ValueError`` where layers or rank differ."""
        path = folder / ADAPTER_FILE
        saved = {key.removeprefix("transformer."): value for key, value in load_file(path).items()}
        parameters = self.adapter_parameters()
        if {k: p.shape for k, p in parameters.items()} != {k: v.shape for k, v in saved.items()}:
            raise ValueError(f"{path} is an adapter of other layers or of another rank")
        for key, parameter in parameters.items():
            parameter.copy_(saved[key])

    @torch.no_grad()
    def copy_adapter(self, source: str, target: str, keep: float = 0.0) -> None:
        """``target`` <- ``keep`` target + (1 - ``keep``) source, weight by weight."""
        values = self.adapter_parameters(source)
        for key, parameter in self.adapter_parameters(target).items():
            parameter.lerp_(values[key], 1 - keep)


__all__ = ["ADAPTER_FILE", "POLICY", "BaseModel", "Embeddings"]
