"""A class of base models that makes clips: latents (C, F, H, W), one embedding and no pipeline."""

from __future__ import annotations

import torch
from diffusers import ModelMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders import PeftAdapterMixin
from safetensors.torch import load_file, save_file

from base_models.base import ADAPTER_FILE, BaseModel, Embeddings

CHANNELS, FRAMES, SIDE, SCALE = 2, 3, 4, 8


class ToyTransformer(ModelMixin, ConfigMixin, PeftAdapterMixin):
    @register_to_config
    def __init__(self):
        super().__init__()
        self.to_q = torch.nn.Linear(CHANNELS + 4 + 1, 8)
        self.to_out = torch.nn.Linear(8, CHANNELS)

    def forward(self, hidden_states, timestep, words):
        x = hidden_states.movedim(1, -1)
        beside = torch.cat([words, timestep[:, None]], 1)[:, None, None, None].expand(*x.shape[:-1], -1)
        return self.to_out(torch.tanh(self.to_q(torch.cat([x, beside], -1)))).movedim(-1, 1)


class ToyClips(BaseModel):
    name = "toy_clips"
    medium = "clip"
    latent_shape = (CHANNELS, FRAMES, SIDE, SIDE)

    def __init__(self, config, device="cpu"):
        super().__init__(config, device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.transformer = self.network = ToyTransformer().requires_grad_(False).eval()

    def encode_prompts(self, prompts):
        words = [[sum(map(ord, p[i::4])) % 7 / 7 for i in range(4)] for p in prompts]
        return Embeddings({"words": torch.tensor(words)})

    def release_text_encoders(self):
        pass

    def sigmas(self, steps):
        return torch.linspace(1, 0, steps + 1)

    def predict(self, x, sigma, embeddings):
        return self.network(x, sigma, **embeddings.to(self.device, self.dtype))

    def decode(self, latents):
        grey = latents.sigmoid().repeat_interleave(SCALE, -1).repeat_interleave(SCALE, -2)
        return torch.stack([grey[:, 0], grey[:, 1], grey[:, 0]], 2)

    def encode(self, media):
        small = media[..., SCALE // 2 :: SCALE, SCALE // 2 :: SCALE].clamp(0.01, 0.99)
        return torch.logit(small[:, :, :CHANNELS]).transpose(1, 2)

    def save_lora(self, folder, layers):
        folder.mkdir(parents=True, exist_ok=True)
        save_file({f"transformer.{k}": v.contiguous() for k, v in layers.items()}, folder / ADAPTER_FILE)

    def load_lora(self, folder):
        if not self.adapter_parameters():
            self.add_adapter()
        saved = load_file(folder / ADAPTER_FILE)
        for key, parameter in self.adapter_parameters().items():
            parameter.data.copy_(saved[f"transformer.{key}"])
