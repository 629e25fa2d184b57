"""Stable Diffusion 3 and 3.5, any size, through ``StableDiffusion3Pipeline``."""

from __future__ import annotations

import torch

from base_models.base import ADAPTER_FILE, POLICY, BaseModel, Prompts


class SD3(BaseModel):
    name = "sd3"

    def __init__(self, config, device="cpu"):
        super().__init__(config, device)
        from diffusers import StableDiffusion3Pipeline

        self.pipeline = StableDiffusion3Pipeline.from_pretrained(
            config.path,
            revision=config.revision,
            dtype=self.dtype,
            use_safetensors=True,
            **dict.fromkeys(config.without),
        )
        self.pipeline.set_progress_bar_config(disable=True)
        for module in self.pipeline.components.values():
            if isinstance(module, torch.nn.Module):
                module.requires_grad_(False).eval().to(self.device)
        self.transformer = self.pipeline.transformer
        self.vae = self.pipeline.vae

    @property
    def latent_shape(self):
        side = self.config.image_size // self.pipeline.vae_scale_factor
        return (self.transformer.config.in_channels, side, side)

    @torch.no_grad()
    def encode_prompts(self, prompts):
        tokens, _, pooled, _ = self.pipeline.encode_prompt(
            prompts,
            prompts,
            prompts,
            device=self.device,
            do_classifier_free_guidance=False,
            max_sequence_length=self.config.max_sequence_length,
        )
        return Prompts(tokens, pooled)

    def sigmas(self, steps):
        # A fresh copy: set_timesteps changes the scheduler, and schedulers differ in how they shift.
        scheduler = type(self.pipeline.scheduler).from_config(self.pipeline.scheduler.config)
        scheduler.set_timesteps(steps)
        return scheduler.sigmas.float()

    def predict(self, x, sigma, prompts):
        return self.transformer(
            hidden_states=x.to(self.dtype),
            timestep=sigma * 1000,
            encoder_hidden_states=prompts.tokens.to(self.dtype),
            pooled_projections=prompts.pooled.to(self.dtype),
            return_dict=False,
        )[0].float()

    @torch.no_grad()
    def decode(self, latents):
        z = latents / self.vae.config.scaling_factor + self.vae.config.shift_factor
        images = self.vae.decode(z.to(self.vae.dtype), return_dict=False)[0].float()
        return (images / 2 + 0.5).clamp(0, 1)

    @torch.no_grad()
    def encode_images(self, images):
        z = self.vae.encode((images * 2 - 1).to(self.vae.dtype)).latent_dist.mean.float()
        return (z - self.vae.config.shift_factor) * self.vae.config.scaling_factor

    def save_lora(self, folder, layers):
        config = self.transformer.peft_config[POLICY]
        self.pipeline.save_lora_weights(
            folder,
            transformer_lora_layers=layers,
            transformer_lora_adapter_metadata=config.to_dict(),
        )

    def load_lora(self, folder):
        if not (folder / ADAPTER_FILE).exists():
            raise FileNotFoundError(f"{folder / ADAPTER_FILE} does not exist")
        if POLICY in getattr(self.transformer, "peft_config", {}):
            self.pipeline.delete_adapters(POLICY)
        self.pipeline.load_lora_weights(folder, weight_name=ADAPTER_FILE, adapter_name=POLICY)
