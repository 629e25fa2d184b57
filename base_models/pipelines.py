"""What the adapters over diffusers pipelines share: opening, latents and images, LoRA files."""

from __future__ import annotations

import gc
from typing import ClassVar

import torch

from base_models.base import ADAPTER_FILE, POLICY, BaseModel
from base_models.cpu_engine import quicken_decoder
from base_models.requirements import missing_weights
from core.files import sort_metadata

TEXT_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")


class PipelineModel(BaseModel):
    """A pipeline with ``transformer``, ``vae`` (AutoencoderKL), ``scheduler`` and text encoders."""

    pipeline_class: ClassVar[str]
    latent_patch: ClassVar[int] = 2  # latent pixels per token and side

    @classmethod
    def missing(cls, config, *, gpu):
        return missing_weights(config, cls.pipeline_class) + super().missing(config, gpu=gpu)

    def __init__(self, config, device="cpu"):
        super().__init__(config, device)
        self.pipeline = self.opened()
        self.pipeline.set_progress_bar_config(disable=True)
        for module in self.pipeline.components.values():
            if isinstance(module, torch.nn.Module):
                module.requires_grad_(False).eval().to(self.device)
        self.transformer = self.network = self.pipeline.transformer
        self.vae = self.prepared_vae()
        if config.gradient_checkpointing:
            self.transformer.enable_gradient_checkpointing()
        token = self.spatial_factor * self.latent_patch
        if config.image_size % token:
            raise ValueError(
                f"{config.label}: key 'image_size' is {config.image_size}, not a multiple of {token}"
            )

    def opened(self, **components):
        """The pipeline of the checkpoint, in the configured precision; ``components`` replace its own."""
        import diffusers

        return getattr(diffusers, self.pipeline_class).from_pretrained(
            self.config.path,
            revision=self.config.revision,
            # The VAE of SD3 and FLUX overflows or bands in half precision; upstream keeps it in float32 too.
            dtype={"default": self.dtype, "vae": torch.float32},
            use_safetensors=True,
            **dict.fromkeys(self.config.without),
            **components,
        )

    def prepared_vae(self) -> torch.nn.Module:
        """The pipeline's autoencoder, made fast."""
        # Convolutions are faster so: decoding by a fifth on a processor with AVX-512.
        vae = self.pipeline.vae.to(memory_format=torch.channels_last)
        if self.device.type == "cpu":
            quicken_decoder(vae.decoder)
        return vae

    @property
    def spatial_factor(self) -> int:
        """Pixels per latent pixel and side."""
        return self.pipeline.vae_scale_factor

    @property
    def latent_shape(self):
        side = self.config.image_size // self.spatial_factor
        return (self.vae.config.latent_channels, side, side)

    def release_text_encoders(self):
        for name in TEXT_ENCODERS:
            if hasattr(self.pipeline, name):
                self.pipeline.register_modules(**{name: None})
        if self.device.type == "cuda":  # elsewhere the little that cycles hold is not worth half a second
            gc.collect()
            torch.cuda.empty_cache()

    def _encoded(self, *prompts: list[str], **options) -> tuple:
        """``encode_prompt`` of the pipeline, by all its text encoders."""
        if self.pipeline.text_encoder is None:
            raise RuntimeError(f"{self.config.label}: its text encoders were released already")
        length = self.config.max_sequence_length
        return self.pipeline.encode_prompt(
            *prompts, device=self.device, max_sequence_length=length, **options
        )

    def scheduler(self):
        """A fresh copy: set_timesteps changes a scheduler, and schedulers differ in how they shift."""
        return type(self.pipeline.scheduler).from_config(self.pipeline.scheduler.config)

    def autocast(self):
        """Matrix products in ``dtype`` where LoRA weights in float32 meet a transformer in half precision."""
        mixed = self.dtype != torch.float32 and self.network is self.transformer
        return torch.autocast(self.device.type, self.dtype, enabled=mixed)

    @torch.no_grad()
    def decode(self, latents):
        z = latents / self.vae.config.scaling_factor + self.vae.config.shift_factor
        images = self.vae.decode(z.to(self.vae.dtype), return_dict=False)[0].float()
        return (images / 2 + 0.5).clamp(0, 1).contiguous()

    @torch.no_grad()
    def encode(self, media):
        z = self.vae.encode((media * 2 - 1).to(self.vae.dtype)).latent_dist.mean.float()
        return (z - self.vae.config.shift_factor) * self.vae.config.scaling_factor

    def save_lora(self, folder, layers):
        config = self.transformer.peft_config[POLICY].to_dict()
        self.pipeline.save_lora_weights(
            folder,
            transformer_lora_layers=layers,
            # A set's order differs from process to process; equal adapters are to be equal files.
            transformer_lora_adapter_metadata={
                key: sorted(value) if isinstance(value, set) else value for key, value in config.items()
            },
        )
        sort_metadata(folder / ADAPTER_FILE)

    def load_lora(self, folder):
        if not (folder / ADAPTER_FILE).exists():
            raise FileNotFoundError(f"{folder / ADAPTER_FILE} does not exist")
        if POLICY in getattr(self.transformer, "peft_config", {}):
            self.pipeline.delete_adapters(POLICY)
        self.pipeline.load_lora_weights(folder, weight_name=ADAPTER_FILE, adapter_name=POLICY)
