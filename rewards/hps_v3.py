"""HPSv3: Qwen2-VL-7B with a head that predicts the mean and spread of people's preference (arXiv 2508.03789).

Its position ids are the plain ones of transformers 4.45, not Qwen2-VL's three-dimensional ones, so the
published scores depend on that version: it runs in ``rewards/environments/hps_v3.txt``.
"""

from __future__ import annotations

import ast
from importlib import metadata as distributions
from pathlib import Path

import torch
from torch import nn

from rewards.base import Reward
from rewards.published import qwen_vl
from rewards.published.hub import HubFiles, file, folder
from rewards.published.images import device, in_batches, to_pil

MODEL = HubFiles("MizzenAI/HPSv3", ("HPSv3.safetensors",), "MIT", "4f81e3e09edd82fe3c5f636444c721b592a735ca")
BACKBONE = HubFiles(
    "Qwen/Qwen2-VL-7B-Instruct",
    ("config.json", "tokenizer.json", "tokenizer_config.json"),
    "Apache-2.0",
    "eed13092ef92e448dd6875b2a00151bd3f7db0ac",
)
PIXELS = 256 * 28 * 28  # upstream: hpsv3 inference.py, least and most
BATCH = 8  # images per forward pass; in bf16 padding rounds otherwise, by hundredths of the spread
REWARD_TOKEN = "<|Reward|>"


def wording() -> tuple[str, str]:
    """The instruction, with the field ``text_prompt``, and the request that ends in the reward token.

    Read from the hpsv3 package without importing it: importing it needs trl, deepspeed and more.
    """
    path = Path(distributions.distribution("hpsv3").locate_file("hpsv3/dataset/data_collator_qwen.py"))
    constants = {
        node.targets[0].id: node.value.value
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
    }
    return constants["INSTRUCTION"], constants["prompt_with_special_token"]


def _head(width: int) -> nn.Sequential:
    """Hidden state -> (mean, log spread)."""
    return nn.Sequential(
        nn.Linear(width, 1024), nn.ReLU(), nn.Dropout(0.05), nn.Linear(1024, 16), nn.ReLU(), nn.Linear(16, 2)
    )


class HPSv3(Reward):
    name = "hps_v3"
    scale = "mean of the predicted preference, unbounded, about 0 to 15"
    licence = "MIT (weights and package); Apache-2.0 (Qwen2-VL)"
    hub = (MODEL, BACKBONE)
    environment = "hps_v3"
    expected_base = {"sd3.5-medium": 9.70}
    expected_source = "GARDO Table 1"

    def __init__(self):
        from safetensors.torch import load_file
        from transformers import Qwen2TokenizerFast, Qwen2VLConfig, Qwen2VLForConditionalGeneration

        here = folder(BACKBONE)
        self.tokenizer = Qwen2TokenizerFast.from_pretrained(here)
        self.tokenizer.add_special_tokens({"additional_special_tokens": [REWARD_TOKEN]})
        state = load_file(file(MODEL))
        prefix = "rm_head."
        head = {key.removeprefix(prefix): state.pop(key) for key in list(state) if key.startswith(prefix)}
        config = Qwen2VLConfig.from_pretrained(here)
        config.vocab_size = len(state["model.embed_tokens.weight"])  # grown by the reward token
        where = device()
        self.model, report = Qwen2VLForConditionalGeneration.from_pretrained(
            None,
            config=config,
            state_dict=state,
            torch_dtype=torch.bfloat16 if where.type == "cuda" else torch.float32,  # upstream: bfloat16
            output_loading_info=True,
        )
        if report["missing_keys"] or report["unexpected_keys"]:
            raise ValueError(f"{MODEL.files[0]} does not fit the model: {report}")
        self.head = _head(config.hidden_size)
        self.head.load_state_dict({key: value.float() for key, value in head.items()})  # upstream: float32
        for module in (self.model, self.head):
            module.eval().requires_grad_(False).to(where)
        self.instruction, self.request = wording()

    def _batch(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        texts = [self.instruction.format(text_prompt=prompt) + self.request for prompt in prompts]
        inputs = qwen_vl.batch(self.tokenizer, to_pil(images), texts, PIXELS, PIXELS, padding_side="right")
        where = self.model.device
        ids = inputs.input_ids.to(where)
        embedded = self.model.model.embed_tokens(ids)
        seen = self.model.visual(
            inputs.pixel_values.to(where, self.model.dtype), grid_thw=inputs.image_grid_thw.to(where)
        )
        image_id = self.tokenizer.convert_tokens_to_ids(qwen_vl.IMAGE_TOKEN)
        places = (ids == image_id).unsqueeze(-1).expand_as(embedded)
        hidden = self.model.model(
            inputs_embeds=embedded.masked_scatter(places, seen.to(embedded.dtype)),
            attention_mask=inputs.attention_mask.to(where),
            use_cache=False,
        )[0]
        reward_id = self.tokenizer.convert_tokens_to_ids(REWARD_TOKEN)
        return self.head(hidden[ids == reward_id].float())[:, 0]

    def score(self, images, prompts, metadata):
        return in_batches(self._batch, BATCH, images, prompts)

    @classmethod
    def check_prompts(cls, metadata):
        for prompt in metadata:
            if REWARD_TOKEN in prompt["prompt"]:
                raise ValueError(
                    f"hps_v3 cannot score a prompt that holds {REWARD_TOKEN}: {prompt['prompt']!r}"
                )
