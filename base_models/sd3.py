"""Stable Diffusion 3 and 3.5, any size, through ``StableDiffusion3Pipeline``."""

from __future__ import annotations

import torch

from base_models.base import Embeddings
from base_models.pipelines import PipelineModel


class SD3(PipelineModel):
    """Two CLIP encoders, T5 where the pipeline has it; classifier-free guidance where its scale exceeds 1."""

    name = "sd3"
    pipeline_class = "StableDiffusion3Pipeline"

    @torch.no_grad()
    def encode_prompts(self, prompts):
        tokens, _, pooled, _ = self._encoded(prompts, prompts, prompts, do_classifier_free_guidance=False)
        return Embeddings({"encoder_hidden_states": tokens.cpu(), "pooled_projections": pooled.cpu()})

    def sigmas(self, steps):
        scheduler = self.scheduler()
        scheduler.set_timesteps(steps)
        return scheduler.sigmas.float()

    def predict(self, x, sigma, embeddings):
        with self.autocast():
            return self.network(
                hidden_states=x.to(self.dtype),
                timestep=sigma * 1000,
                **embeddings.to(self.device, self.dtype),
                return_dict=False,
            )[0].float()
