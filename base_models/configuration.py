"""``config/base_models/<name>.yaml``: which pipeline, at which size, precision and guidance."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from core.settings import Settings


class LoraSettings(Settings):
    rank: int = Field(ge=1)
    alpha: int = Field(ge=1)
    target_modules: list[str] = Field(min_length=1)


class ClipSettings(Settings):
    """What a model of clips is asked for."""

    frames: int = Field(gt=1, description="of a clip")
    width: int = Field(gt=0, multiple_of=8, description="pixels; image_size is the height")
    frames_per_second: int = Field(gt=0, description="of the files that show a clip")
    negative_prompt: str | None = Field(None, description="null: the pipeline's own")


class BaseModelConfig(Settings):
    """One file in ``config/base_models/``."""

    label: str = Field(description="name in tables")
    pipeline: str = Field(description="class of pipelines: a file in base_models/")
    path: str = Field(description="folder, or model id on the hub")
    revision: str | None = Field(
        None, pattern="^[0-9a-f]{40}$", description="pinned commit of a hub model, 40 hexadecimal digits"
    )
    licence: str = Field("apache-2.0", description="licence of the weights and of adapters to them")
    without: list[str] = Field([], description="pipeline components left out, e.g. text_encoder_3")
    needs_gpu: bool = Field(False, description="too large for a processor")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32",
        description="of transformer and text encoders; LoRA weights and the VAE stay in float32; losses in "
        "float16 are scaled, and a step whose scaled gradient overflows is skipped",
    )
    gradient_checkpointing: bool = Field(
        False, description="recompute activations in the backward pass: less memory, slower updates"
    )
    merged_dtype: Literal["bfloat16"] | None = Field(
        None,
        description="compute on a copy of the transformer, LoRA merged, in this precision, on processors "
        "without instructions for it in float32; null: no copy",
    )
    image_size: int = Field(gt=0, le=8192, multiple_of=8, description="pixels")
    max_sequence_length: int = Field(gt=0, description="T5 tokens")
    guidance_scale: float = Field(
        1.0, ge=1, description="classifier-free, 1 turns it off; embedded where the model was distilled so"
    )
    evaluation_guidance_scale: float | None = Field(
        None, ge=1, description="of evaluation, where it is another; null: guidance_scale"
    )
    rollout_steps: int = Field(gt=0, description="denoising steps in training")
    evaluation_steps: int = Field(gt=0, description="denoising steps in evaluation (deterministic)")
    lora: LoraSettings
    clip: ClipSettings | None = Field(
        None, exclude_if=lambda value: value is None, description="of models that make clips"
    )

    @property
    def pixels(self) -> int:
        """Of one image or clip."""
        if self.clip is None:
            return self.image_size**2
        return self.clip.frames * self.image_size * self.clip.width

    def in_evaluation(self) -> BaseModelConfig:
        """The model as evaluation opens it, with the guidance of evaluation."""
        return self.model_copy(update={"guidance_scale": self.shown_guidance})

    @property
    def shown_guidance(self) -> float:
        """Guidance scale of the images that are evaluated."""
        return self.evaluation_guidance_scale or self.guidance_scale
