"""FLUX.1, any size, through ``FluxPipeline``.

The transformer works on tokens of 2 x 2 latent pixels. That stays in here: the rest of the suite sees
latents (C, H, W) as with every other base model.
"""

from __future__ import annotations

import numpy as np
import torch

from base_models.base import Embeddings
from base_models.pipelines import PipelineModel


def pack(latents: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) -> (B, H/2 * W/2, 4 C): one token per 2 x 2 latent pixels, as ``FluxPipeline`` does."""
    b, c, h, w = latents.shape
    blocks = latents.reshape(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return blocks.reshape(b, h // 2 * (w // 2), 4 * c)


def unpack(tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The inverse of ``pack`` for latents of ``height`` x ``width``."""
    b, _, channels = tokens.shape
    blocks = tokens.reshape(b, height // 2, width // 2, channels // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return blocks.reshape(b, channels // 4, height, width)


def position_ids(height: int, width: int, device: torch.device) -> torch.Tensor:
    """Row and column of every token of a packed latent, (H/2 * W/2, 3)."""
    rows, columns = torch.meshgrid(torch.arange(height // 2), torch.arange(width // 2), indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).reshape(-1, 3).float().to(device)


class Flux(PipelineModel):
    """CLIP's pooled and T5's token embeddings. A model with a guidance embedding, such as FLUX.1-dev, gets
    the guidance scale as an input; one without it is guided classifier-free."""

    name = "flux"
    pipeline_class = "FluxPipeline"

    @property
    def embedded_guidance(self) -> bool:
        return self.transformer.config.guidance_embeds

    @property
    def classifier_free_guidance(self):
        return super().classifier_free_guidance and not self.embedded_guidance

    @torch.no_grad()
    def encode_prompts(self, prompts):
        tokens, pooled, _ = self._encoded(prompts, prompts)
        return Embeddings({"encoder_hidden_states": tokens.cpu(), "pooled_projections": pooled.cpu()})

    def sigmas(self, steps):
        from diffusers.pipelines.flux.pipeline_flux import calculate_shift

        scheduler = self.scheduler()
        _, height, width = self.latent_shape
        config = scheduler.config
        mu = calculate_shift(
            height * width // self.latent_patch**2,
            config.base_image_seq_len,
            config.max_image_seq_len,
            config.base_shift,
            config.max_shift,
        )
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)
        return scheduler.sigmas.float()

    def predict(self, x, sigma, embeddings):
        height, width = x.shape[-2:]
        tensors = embeddings.to(self.device, self.dtype)
        text_length = tensors["encoder_hidden_states"].shape[1]
        guidance = torch.full_like(sigma, self.config.guidance_scale) if self.embedded_guidance else None
        with self.autocast():
            velocity = self.network(
                hidden_states=pack(x.to(self.dtype)),
                timestep=sigma,
                guidance=guidance,
                **tensors,
                txt_ids=torch.zeros(text_length, 3, device=self.device),
                img_ids=position_ids(height, width, self.device),
                return_dict=False,
            )[0]
        return unpack(velocity, height, width).float()
