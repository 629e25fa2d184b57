"""What training and evaluation may ask of a base model; one plug-in file per pipeline class.

Nothing here asks whether a model is tiny. The policy is a LoRA adapter named ``policy`` on the
pipeline's transformer; copies of it (``reference``, ``old``, ``ema``) are further adapters.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
from pydantic import BaseModel as PydanticModel
from pydantic import ConfigDict, Field
from safetensors.torch import load_file

POLICY = "policy"
ADAPTER_FILE = "pytorch_lora_weights.safetensors"


class LoraSettings(PydanticModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    rank: int = Field(ge=1)
    alpha: int = Field(ge=1)
    target_modules: list[str] = Field(min_length=1)


class BaseModelConfig(PydanticModel):
    """One file in ``config/base_models/``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    label: str = Field(description="name in tables")
    adapter: str = Field(description="file in base_models/ that opens it")
    path: str = Field(description="folder, or model id on the hub")
    revision: str | None = Field(
        None, pattern="^[0-9a-f]{40}$", description="pinned commit of a hub model, 40 hexadecimal digits"
    )
    license: str = Field("apache-2.0", description="licence of the weights and of adapters to them")
    without: list[str] = Field([], description="pipeline components left out, e.g. text_encoder_3")
    needs_gpu: bool = Field(False, description="too large for a processor")
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="of transformer and text encoders; LoRA weights and the VAE stay in float32"
    )
    gradient_checkpointing: bool = Field(
        False, description="recompute activations in the backward pass: less memory, slower updates"
    )
    sampling_dtype: Literal["bfloat16", "float16"] | None = Field(
        None,
        description="sample from a copy of the transformer in this precision, LoRA merged; null: no copy",
    )
    image_size: int = Field(gt=0, description="pixels")
    max_sequence_length: int = Field(gt=0, description="T5 tokens")
    guidance_scale: float = Field(
        1.0, ge=1, description="classifier-free, 1 turns it off; embedded where the model was distilled so"
    )
    rollout_steps: int = Field(gt=0, description="denoising steps in training")
    evaluation_steps: int = Field(gt=0, description="denoising steps in evaluation (deterministic)")
    lora: LoraSettings


@dataclass
class Prompts:
    """Embeddings of n prompts: tokens (n, L, D), pooled (n, P). Index it with a long or boolean tensor.

    They stay on the CPU: 205 tokens of 4096 bf16 numbers are 1.7 MB, so the prompts of a whole task would
    fill a device. ``BaseModel.predict`` moves the rows it is given.
    """

    tokens: torch.Tensor
    pooled: torch.Tensor

    def __getitem__(self, index: torch.Tensor) -> Prompts:
        index = index.to(self.tokens.device)
        return Prompts(self.tokens[index], self.pooled[index])

    def __len__(self) -> int:
        return len(self.tokens)


class BaseModel(ABC):
    """A pipeline, its LoRA adapters and the few things one does with them."""

    name: ClassVar[str]
    transformer: torch.nn.Module

    def __init__(self, config: BaseModelConfig, device: torch.device | str = "cpu"):
        self.config = config
        self.device = torch.device(device)
        self.dtype = getattr(torch, config.dtype)
        self._sampler: torch.nn.Module | None = None

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
        """Shape of one latent, without the batch; image-like, (C, H, W)."""

    @property
    def classifier_free_guidance(self) -> bool:
        """Whether ``velocity`` needs the embedding of the empty prompt."""
        return self.config.guidance_scale > 1

    @abstractmethod
    def encode_prompts(self, prompts: list[str]) -> Prompts:
        """Embed prompts without gradient. Raises ``RuntimeError`` once the text encoders are released."""

    @abstractmethod
    def release_text_encoders(self) -> None:
        """Free the memory of the text encoders, once all prompts are embedded."""

    @abstractmethod
    def sigmas(self, steps: int) -> torch.Tensor:
        """The scheduler's noise shares, float32 (steps + 1,), from 1 down to 0."""

    @abstractmethod
    def predict(self, x: torch.Tensor, sigma: torch.Tensor, prompts: Prompts) -> torch.Tensor:
        """One forward pass of the transformer: velocity (B, ...) at x (B, ...), sigma (B,)."""

    @abstractmethod
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents -> images, float32 (N, 3, H, W) in [0, 1]."""

    @abstractmethod
    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """Images (N, 3, H, W) in [0, 1] -> normalised latents (N, ...)."""

    @abstractmethod
    def save_lora(self, folder: Path, layers: dict[str, torch.Tensor]) -> None:
        """Write ``layers`` in the diffusers LoRA format into ``folder``."""

    @abstractmethod
    def load_lora(self, folder: Path) -> None:
        """Load a saved adapter as the policy, through the pipeline's own loader."""

    # --- shared ----------------------------------------------------------------------------------

    def velocity(
        self, x: torch.Tensor, sigma: torch.Tensor, prompts: Prompts, empty: Prompts | None = None
    ) -> torch.Tensor:
        """Velocity, with classifier-free guidance u + g (c - u) where the model uses it.

        Args:
            empty: embedding of the empty prompt, one row; needed for guidance only.
        """
        if not self.classifier_free_guidance:
            return self.predict(x, sigma, prompts)
        g, n = self.config.guidance_scale, len(x)
        both = Prompts(
            torch.cat([empty.tokens.expand(n, -1, -1), prompts.tokens]),
            torch.cat([empty.pooled.expand(n, -1), prompts.pooled]),
        )
        unconditional, conditional = self.predict(torch.cat([x, x]), torch.cat([sigma, sigma]), both).chunk(2)
        return unconditional + g * (conditional - unconditional)

    @contextmanager
    def sampling(self, adapter: str = POLICY) -> Iterator[None]:
        """Inside, ``velocity`` runs on the sampling copy with ``adapter`` merged, if it exists.

        On a processor with bf16 instructions this halves the cost of rollouts; training and its
        log-probabilities stay in ``dtype``.
        """
        if self.config.sampling_dtype is None:
            if adapter == POLICY:
                yield
            else:
                with self.using(adapter):
                    yield
            return
        if self._sampler is None:
            self._sampler = self._plain_copy().to(getattr(torch, self.config.sampling_dtype))
        self._merge_into(self._sampler, adapter)
        live, live_dtype = self.transformer, self.dtype
        self.transformer, self.dtype = self._sampler, getattr(torch, self.config.sampling_dtype)
        try:
            yield
        finally:
            self.transformer, self.dtype = live, live_dtype

    def _plain_copy(self) -> torch.nn.Module:
        """The transformer without LoRA layers."""
        plain = type(self.transformer).from_config(self.transformer.config)
        weights = {k.replace(".base_layer.", "."): v for k, v in self.transformer.state_dict().items()}
        plain.load_state_dict({k: v for k, v in weights.items() if "lora_" not in k})
        return plain.requires_grad_(False).eval().to(self.device)

    @torch.no_grad()
    def _merge_into(self, plain: torch.nn.Module, adapter: str) -> None:
        """Write W + scaling * B A of every LoRA layer of the adapter into ``plain``."""
        for name, layer in self.transformer.named_modules():
            if hasattr(layer, "lora_A") and adapter in layer.lora_A:
                weight = layer.base_layer.weight + layer.get_delta_weight(adapter)
                plain.get_submodule(name).weight.copy_(weight)

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

    @contextmanager
    def using(self, name: str | None) -> Iterator[None]:
        """Run with another adapter, or with the bare base model for None; the policy is active after it."""
        if name is None:
            self.transformer.disable_adapters()
        else:
            self.transformer.set_adapter(name)
        try:
            yield
        finally:
            if name is None:
                self.transformer.enable_adapters()
            self.transformer.set_adapter(POLICY)


__all__ = ["ADAPTER_FILE", "POLICY", "BaseModel", "BaseModelConfig", "LoraSettings", "Prompts"]
