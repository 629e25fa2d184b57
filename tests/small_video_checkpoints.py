"""Small models of the classes that judge clips, with random weights, as their repositories lay them out."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from rewards.frame_difference import FrameDifference
from rewards.published.github import SITE
from rewards.published.github import snapshot as github_snapshot
from rewards.published.video_align import TOKENS


class IsolatedDifference(FrameDifference):
    """A rule for clips behind the scoring service."""

    environment = "test"


WIDTH, RANK = 32, 4
TARGETS = ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")
# Words of this file's own; what upstream's file holds is fetched, not shipped.
TEMPLATE = '''import os
OTHER = "no {text_prompt}"
DETAILED_PROMPT_WITH_SPECIAL_TOKEN = """
Grade the clip.
How good does it look? <|VQ_reward|>
How well does it move? <|MQ_reward|>
It should show: {text_prompt}
Does it? <|TA_reward|>
"""
'''


def folder_of(cache: Path, repository: str, revision: str) -> Path | None:
    """Where a commit of a GitHub repository lies; None for one of the hub."""
    return github_snapshot(cache, repository, revision) if repository.startswith(SITE) else None


def video_align_backbone(folder: Path) -> None:
    """Tokenizer and configuration, in the flat form that Qwen2-VL-2B's repository has."""
    from tests.small_checkpoints import qwen_sizes, qwen_tokenizer

    ids = qwen_tokenizer(folder, ["<|video_pad|>"])
    text, vision = qwen_sizes()
    config = {
        **text,
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "model_type": "qwen2_vl",
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
        "tie_word_embeddings": True,
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_config": {**vision, "embed_dim": WIDTH, "hidden_size": WIDTH, "mlp_ratio": 2},
    }
    (folder / "config.json").write_text(json.dumps(config))


def video_align_state(backbone: Path, outputs: int = 1) -> dict[str, torch.Tensor]:
    """Parameters as PEFT names them in ``model.pth``, with low-rank updates that matter."""
    from transformers import AutoTokenizer, Qwen2VLConfig, Qwen2VLModel

    config = Qwen2VLConfig.from_pretrained(backbone)
    tokens = len(AutoTokenizer.from_pretrained(backbone)) + len(TOKENS)
    config.text_config.vocab_size = tokens
    state = {}
    for name, value in Qwen2VLModel(config).state_dict().items():
        name = name.replace("language_model.", "model.")
        stem, _, kind = name.rpartition(".")
        value = torch.randn_like(value) * 0.1 + ("norm" in name and kind == "weight")
        if not stem.endswith(TARGETS):
            state[f"base_model.model.{name}"] = value
            continue
        state[f"base_model.model.{stem}.base_layer.{kind}"] = value
        if kind == "weight":
            state[f"base_model.model.{stem}.lora_A.default.weight"] = torch.randn(RANK, value.shape[1]) * 0.2
            state[f"base_model.model.{stem}.lora_B.default.weight"] = torch.randn(value.shape[0], RANK) * 0.2
    state["base_model.model.lm_head.weight"] = torch.randn(tokens, WIDTH)
    state["base_model.model.rm_head.weight"] = torch.randn(outputs, WIDTH)
    return state


def video_align_weights(folder: Path) -> None:
    backbone = folder / "backbone"  # the same words and sizes as the backbone's own repository has
    backbone.mkdir()
    video_align_backbone(backbone)
    (folder / "checkpoint-11352").mkdir()
    torch.save(video_align_state(backbone), folder / "checkpoint-11352" / "model.pth")


def dino(folder: Path) -> None:
    from transformers import ViTConfig, ViTModel

    sizes = {"hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = ViTModel(ViTConfig(image_size=32, patch_size=8, initializer_range=0.3, **sizes))
    as_pytorch_file(model, folder)


def clip_base(folder: Path) -> None:
    from transformers import CLIPModel

    from tests.small_checkpoints import clip_config

    as_pytorch_file(CLIPModel(clip_config(16)), folder)


def as_pytorch_file(model, folder: Path) -> None:
    model.config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")


BUILDERS = {
    "KlingTeam/VideoReward": video_align_weights,
    "Qwen/Qwen2-VL-2B-Instruct": video_align_backbone,
    "github.com/KwaiVGI/VideoAlign": lambda folder: (folder / "prompt_template.py").write_text(TEMPLATE),
    "github.com/LAION-AI/aesthetic-predictor": lambda folder: torch.save(
        torch.nn.Linear(768, 1).state_dict(), folder / "sa_0_4_vit_l_14_linear.pth"
    ),
    "facebook/dino-vitb16": dino,
    "openai/clip-vit-base-patch32": clip_base,
}
