"""Cosmos-Predict2.5, any size, through ``Cosmos2_5_PredictBasePipeline``: clips from a text, or from a text
and the clip's first frames.

- The pipeline wants a safety checker of the package ``cosmos_guardrail``. None is needed here: it is opened
  with one that lets everything pass, as research on rewards must see what a policy makes.
- A prompt's embedding is stored behind the transformer's projection of it, 100 times smaller. No LoRA layer
  lies before it.
- Frames that are given: the transformer sees them clean, at the noise share ``CONDITION_SIGMA``, and their
  velocity is the one that leads to them, (x - c) / sigma. So they are reached exactly and drop out of ratios
  and KL; the pipeline's own velocity (noise less c) needs the first noise.
"""

from __future__ import annotations

from importlib.util import find_spec

import torch

from base_models.base import CONDITION, Embeddings
from base_models.pipelines import PipelineModel

CONDITION_SIGMA = 1e-4  # upstream: diffusers, ``conditional_frame_timestep``
HIGHEST_SIGMA = 1 - 1e-4  # above, a schedule means pure noise; its distance from 1 is a rounding


class Unchecked:
    """In place of ``CosmosSafetyChecker``."""

    def to(self, *_):
        return self

    def check_text_safety(self, _: str) -> bool:
        return True

    def check_video_safety(self, frames):
        return frames


class Cosmos(PipelineModel):
    """Guidance is c + g (c - u) with a negative prompt, as in the pipeline, off at a scale of 1."""

    name = "cosmos"
    medium = "clip"
    takes_first_frames = True
    pipeline_class = "Cosmos2_5_PredictBasePipeline"

    @classmethod
    def missing(cls, config, *, gpu):
        lines = super().missing(config, gpu=gpu)
        if config.clip is None:
            lines.append(f"{config.label}: key 'clip' is missing; {cls.name} makes clips")
        if find_spec("torchvision") is None and config.needs_gpu:
            lines.append(f"{config.label}: its transformer needs torchvision, which is not installed")
        return lines

    def __init__(self, config, device="cpu"):
        super().__init__(config, device)
        if (config.clip.frames - 1) % self.pipeline.vae_scale_factor_temporal:
            step = self.pipeline.vae_scale_factor_temporal
            raise ValueError(
                f"{config.label}: key 'clip.frames' is {config.clip.frames}; "
                f"valid: 1 more than a multiple of {step}"
            )
        self.project = getattr(self.transformer, "crossattn_proj", torch.nn.Identity())
        if self.transformer.config.use_crossattn_projection:
            self.transformer.crossattn_proj = torch.nn.Identity()
        self.latents_mean = self.pipeline.latents_mean.to(self.device)
        self.latents_std = 1 / self.pipeline.latents_std.to(self.device)  # the pipeline's is the inverse

    def opened(self, **components):
        return super().opened(**components, safety_checker=Unchecked())

    def prepared_vae(self):
        # Convolutions are twice as fast so on a processor. ``to(memory_format=...)`` refuses a module whose
        # weights are of different rank, as this one's of images and of clips are.
        for module in self.pipeline.vae.modules():
            if isinstance(module, torch.nn.Conv3d):
                module.to(memory_format=torch.channels_last_3d)
            elif isinstance(module, torch.nn.Conv2d):
                module.to(memory_format=torch.channels_last)
        return self.pipeline.vae

    @property
    def spatial_factor(self):
        return self.pipeline.vae_scale_factor_spatial

    @property
    def latent_shape(self):
        clip, factor = self.config.clip, self.spatial_factor
        frames = (clip.frames - 1) // self.pipeline.vae_scale_factor_temporal + 1
        return (self.vae.config.z_dim, frames, self.config.image_size // factor, clip.width // factor)

    @property
    def unconditional_prompt(self):
        from diffusers.pipelines.cosmos.pipeline_cosmos2_5_predict import DEFAULT_NEGATIVE_PROMPT

        own = self.config.clip.negative_prompt
        return DEFAULT_NEGATIVE_PROMPT if own is None else own

    @torch.no_grad()
    def encode_prompts(self, prompts):
        states, _ = self._encoded(prompts, do_classifier_free_guidance=False)
        with self.autocast():
            return Embeddings({"encoder_hidden_states": self.project(states).to(self.dtype).cpu()})

    def release_text_encoders(self):
        super().release_text_encoders()
        self.project = None

    def conditioned(self, embeddings: Embeddings, media: torch.Tensor) -> Embeddings:
        """F' is 1, or 1 more than a multiple of the frames in a latent one; adds latents (n, C, T', H, W)."""
        return Embeddings({**embeddings.tensors, CONDITION: self.encode(media).cpu()})

    def held(self, latents, embeddings):
        given = embeddings.tensors.get(CONDITION)
        if given is None:
            return latents
        return torch.cat([given.to(latents), latents[:, :, given.shape[2] :]], dim=2)

    def unconditional(self, empty, embeddings):
        rows = super().unconditional(empty, embeddings)
        given = {name: v for name, v in embeddings.tensors.items() if name == CONDITION}
        return Embeddings({**rows.tensors, **given})

    def guided(self, conditional, unconditional):
        return conditional + self.config.guidance_scale * (conditional - unconditional)

    def sigmas(self, steps):
        scheduler = self.scheduler()
        scheduler.set_timesteps(steps)
        sigmas = scheduler.sigmas.float()
        return torch.where(sigmas > HIGHEST_SIGMA, torch.ones_like(sigmas), sigmas)

    def predict(self, x, sigma, embeddings):
        n, _, frames, height, width = x.shape
        tensors = dict(embeddings.tensors)
        given = tensors.pop(CONDITION, None)
        mask, seen, times = x.new_zeros(n, 1, frames, height, width), x, sigma
        if given is not None:
            given = given.to(x)
            mask[:, :, : given.shape[2]] = 1
            seen = torch.cat([given, x[:, :, given.shape[2] :]], dim=2)
            clean = mask[:, :, :, :1, :1]
            times = clean * CONDITION_SIGMA + (1 - clean) * sigma[:, None, None, None, None]
        factor = self.spatial_factor
        with self.autocast():
            velocity = self.network(
                hidden_states=seen.to(self.dtype),
                condition_mask=mask.to(self.dtype),
                timestep=times,
                padding_mask=x.new_zeros(1, 1, height * factor, width * factor, dtype=self.dtype),
                **Embeddings(tensors).to(self.device, self.dtype),
                return_dict=False,
            )[0].float()
        if given is None:
            return velocity
        held = (x[:, :, : given.shape[2]] - given) / sigma[:, None, None, None, None].clamp(
            min=CONDITION_SIGMA
        )
        return torch.cat([held, velocity[:, :, given.shape[2] :]], dim=2)

    @torch.no_grad()
    def decode(self, latents):
        z = latents * self.latents_std + self.latents_mean
        clips = self.vae.decode(z.to(self.vae.dtype), return_dict=False)[0].float()
        return (clips / 2 + 0.5).clamp(0, 1).movedim(1, 2).contiguous()

    @torch.no_grad()
    def encode(self, media):
        frames = (media.movedim(2, 1) * 2 - 1).to(self.device, self.vae.dtype)
        z = torch.cat(
            [self.vae.encode(clip[None]).latent_dist.mode() for clip in frames]
        )  # as the pipeline does
        return (z.float() - self.latents_mean) / self.latents_std
