"""Small models of the published classes, with random weights, laid out as the hub cache lays them out.

``fill_cache`` serves every repository that a reward or encoder names, so rewards open them through the code
that opens the published ones. The sizes are free, the classes and the parameters' names are not.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from rewards.published.hub import HubFiles
from rewards.published.linear_head import LinearHead
from tests import small_video_checkpoints

ROOT = Path(__file__).resolve().parents[1]
CLIP_TOKENIZER = ROOT / "resources" / "tiny-sd3" / "tokenizer"
WIDTH = 32
VISION_WIDTH = 64  # ImageReward's vision transformer: one attention head
QWEN_TOKENS = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]
QWEN_VOCABULARY = 1000
HPS_V3 = """
import sys
from tests.small_checkpoints import hps_v3
hps_v3(*sys.argv[1:])
"""


def clip_config(projection: int):
    from transformers import CLIPConfig, CLIPTextConfig, CLIPVisionConfig

    sizes = {"hidden_size": WIDTH, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = CLIPTextConfig(
        vocab_size=228, max_position_embeddings=20, bos_token_id=0, eos_token_id=1, pad_token_id=2, **sizes
    )
    vision = CLIPVisionConfig(image_size=32, patch_size=8, **sizes)
    return CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=projection)


def clip(folder: Path, projection: int = 768, weights: bool = True) -> None:
    from transformers import CLIPModel

    shutil.copytree(CLIP_TOKENIZER, folder, dirs_exist_ok=True)
    model = CLIPModel(clip_config(projection))
    if weights:
        model.save_pretrained(folder)
    else:
        model.config.save_pretrained(folder)


def open_clip_state(width: int = WIDTH, layers: int = 2, vocabulary: int = 228) -> dict[str, torch.Tensor]:
    """Parameters of an ``open_clip.CLIP`` of this size, random."""
    shapes = {
        "logit_scale": (),
        "positional_embedding": (20, width),
        "text_projection": (width, width),
        "token_embedding.weight": (vocabulary, width),
        "visual.class_embedding": (width,),
        "visual.positional_embedding": (17, width),
        "visual.proj": (width, width),
        "visual.conv1.weight": (width, 3, 8, 8),
    }
    for norm in ("ln_final", "visual.ln_pre", "visual.ln_post"):
        shapes |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
    for layer in range(layers):
        for tower in ("transformer", "visual.transformer"):
            block = f"{tower}.resblocks.{layer}"
            for name, outputs, inputs in (
                ("attn.in_proj_", 3 * width, width),
                ("attn.out_proj.", width, width),
                ("mlp.c_fc.", 4 * width, width),
                ("mlp.c_proj.", width, 4 * width),
            ):
                shapes |= {f"{block}.{name}weight": (outputs, inputs), f"{block}.{name}bias": (outputs,)}
            for norm in ("ln_1", "ln_2"):
                shapes |= {f"{block}.{norm}.weight": (width,), f"{block}.{norm}.bias": (width,)}
    return {name: 0.1 * torch.randn(shape) for name, shape in shapes.items()}


def image_reward_state(depth: int = 2) -> dict[str, torch.Tensor]:
    """Parameters of ``ImageReward.ImageReward`` at this size, random; those of its unused heads as well."""
    width, text = VISION_WIDTH, WIDTH
    shapes = {
        "blip.visual_encoder.cls_token": (1, 1, width),
        "blip.visual_encoder.pos_embed": (1, 5, width),
        "blip.visual_encoder.patch_embed.proj.weight": (width, 3, 16, 16),
        "blip.visual_encoder.patch_embed.proj.bias": (width,),
        "blip.text_encoder.embeddings.word_embeddings.weight": (50, text),
        "blip.text_encoder.embeddings.position_embeddings.weight": (64, text),
        "blip.text_proj.weight": (8, text),
    }

    def linear(name: str, outputs: int, inputs: int) -> None:
        shapes.update({f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)})

    def norm(name: str, size: int) -> None:
        shapes.update({f"{name}.weight": (size,), f"{name}.bias": (size,)})

    norm("blip.visual_encoder.norm", width)
    norm("blip.text_encoder.embeddings.LayerNorm", text)
    for layer in range(depth):
        block = f"blip.visual_encoder.blocks.{layer}"
        for name, outputs, inputs in (
            ("attn.qkv", 3 * width, width),
            ("attn.proj", width, width),
            ("mlp.fc1", 2 * width, width),
            ("mlp.fc2", width, 2 * width),
        ):
            linear(f"{block}.{name}", outputs, inputs)
        norm(f"{block}.norm1", width)
        norm(f"{block}.norm2", width)
        block = f"blip.text_encoder.encoder.layer.{layer}"
        for attention, source in (("attention", text), ("crossattention", width)):
            linear(f"{block}.{attention}.self.query", text, text)
            linear(f"{block}.{attention}.self.key", text, source)
            linear(f"{block}.{attention}.self.value", text, source)
            linear(f"{block}.{attention}.output.dense", text, text)
            norm(f"{block}.{attention}.output.LayerNorm", text)
        linear(f"{block}.intermediate.dense", 2 * text, text)
        linear(f"{block}.output.dense", text, 2 * text)
        norm(f"{block}.output.LayerNorm", text)
    state = {name: 0.1 * torch.randn(shape) for name, shape in shapes.items()}
    state["blip.text_encoder.embeddings.position_ids"] = torch.arange(64)[None]
    return state | {f"mlp.{name}": value for name, value in linear_head(text).items()}


def linear_head(width: int = 768) -> dict[str, torch.Tensor]:
    """Random, with scores that differ visibly between images."""
    return {name: 3 * value for name, value in LinearHead(width).state_dict().items()}


def image_reward(folder: Path) -> None:
    torch.save(image_reward_state(), folder / "ImageReward.pt")
    config = {
        "vocab_size": 50,
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
    }
    (folder / "med_config.json").write_text(json.dumps(config))


def bert_tokenizer(folder: Path) -> None:
    from transformers import BertTokenizer

    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters[:20], *(f"##{x}" for x in letters[:20])]
    BertTokenizer(vocab={word: i for i, word in enumerate(words)}).save_pretrained(folder)


def mask2former(folder: Path) -> None:
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

    backbone = SwinConfig(
        image_size=64,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = Mask2FormerConfig(
        backbone_config=backbone,
        num_labels=80,
        num_queries=12,
        hidden_dim=32,
        mask_feature_size=32,
        feature_size=32,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        encoder_feedforward_dim=32,
        dim_feedforward=32,
    )
    model = Mask2FormerForUniversalSegmentation(config)
    torch.nn.init.normal_(model.class_predictor.weight, std=3)  # so that some classes pass the threshold
    model.save_pretrained(folder)


def dinov3(folder: Path) -> None:
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    config = DINOv3ViTConfig(
        hidden_size=WIDTH,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_register_tokens=4,
    )
    DINOv3ViTModel(config).save_pretrained(folder)


def qwen_tokenizer(folder: Path, more: list[str] | None = None) -> dict[str, int]:
    """Byte pairs learnt from this repository's README; returns the ids of the special tokens."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import Qwen2Tokenizer

    special = [*QWEN_TOKENS, *(more or [])]
    learnt = ByteLevelBPETokenizer()
    learnt.train(str(ROOT / "README.md"), vocab_size=QWEN_VOCABULARY - 1 - len(special))
    model = json.loads(learnt.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    tokenizer = Qwen2Tokenizer(vocab=model["vocab"], merges=merges, additional_special_tokens=special)
    tokenizer.save_pretrained(folder)
    return {token: tokenizer.convert_tokens_to_ids(token) for token in ["<|endoftext|>", *special]}


def qwen_sizes() -> tuple[dict, dict]:
    """Sizes of the language and of the vision model."""
    text = {
        "vocab_size": QWEN_VOCABULARY,
        "hidden_size": WIDTH,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 8192,
    }
    return text, {"depth": 1, "num_heads": 2, "patch_size": 14, "in_channels": 3}


def unified_reward(folder: Path) -> None:
    # Small enough that the file is split, as that of seven billion parameters is.
    qwen2_5_vl(qwen_tokenizer(folder)).save_pretrained(folder, max_shard_size="100KB")


def qwen2_5_vl(ids: dict[str, int]):
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    end = ids["<|endoftext|>"]
    text, vision = qwen_sizes()
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e6}
    config = Qwen2_5_VLConfig(
        text_config={**text, "rope_parameters": rope, "eos_token_id": end, "pad_token_id": end},
        vision_config={
            **vision,
            "hidden_size": WIDTH,
            "intermediate_size": 64,
            "out_hidden_size": WIDTH,
            "fullatt_block_indexes": [0],
        },
        image_token_id=ids["<|image_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    return Qwen2_5_VLForConditionalGeneration(config)


def qwen3_vl(folder: Path) -> None:
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    ids = qwen_tokenizer(folder)
    text, vision = qwen_sizes()
    end = ids["<|endoftext|>"]
    rope = {"rope_type": "default", "mrope_section": [3, 3, 2], "mrope_interleaved": True, "rope_theta": 5e6}
    config = Qwen3VLConfig(
        text_config={
            **text,
            "head_dim": 16,
            "rope_parameters": rope,
            "eos_token_id": end,
            "pad_token_id": end,
        },
        vision_config={
            **vision,
            "patch_size": 16,
            "hidden_size": WIDTH,
            "intermediate_size": 64,
            "out_hidden_size": WIDTH,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0],
        },
        image_token_id=ids["<|image_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    Qwen3VLForConditionalGeneration(config).save_pretrained(folder, max_shard_size="100KB")


def hps_v3(backbone: str, weights: str) -> None:
    """Called inside the reward's own environment, whose classes name the parameters."""
    from safetensors.torch import save_file
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    from rewards.hps_v3 import _head

    torch.manual_seed(0)
    text, vision = qwen_sizes()
    config = Qwen2VLConfig(
        **text,
        rope_scaling={"type": "mrope", "mrope_section": [2, 3, 3]},
        vision_config={**vision, "embed_dim": WIDTH, "hidden_size": WIDTH, "mlp_ratio": 2},
    )
    config.save_pretrained(backbone)
    config.vocab_size += 1  # the reward token's row
    state = Qwen2VLForConditionalGeneration(config).state_dict()
    state |= {f"rm_head.{name}": 10 * value for name, value in _head(WIDTH).state_dict().items()}
    save_file({name: value.contiguous() for name, value in state.items()}, weights)


BUILDERS: dict[str, Callable[[Path], object]] = {
    "openai/clip-vit-large-patch14": clip,
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K": lambda folder: clip(folder, WIDTH, weights=False),
    "yuvalkirstain/PickScore_v1": lambda folder: clip(folder, WIDTH),
    "xswu/HPSv2": lambda folder: torch.save(
        {"state_dict": open_clip_state()}, folder / "HPS_v2.1_compressed.pt"
    ),
    "trl-lib/ddpo-aesthetic-predictor": lambda folder: torch.save(
        linear_head(), folder / "aesthetic-model.pth"
    ),
    "zai-org/ImageReward": image_reward,
    "google-bert/bert-base-uncased": bert_tokenizer,
    "facebook/mask2former-swin-small-coco-instance": mask2former,
    "facebook/dinov3-vitl16-pretrain-lvd1689m": dinov3,
    "CodeGoat24/UnifiedReward-qwen-7b": unified_reward,
    "Qwen/Qwen3-VL-8B-Instruct": qwen3_vl,
    "Qwen/Qwen2-VL-7B-Instruct": qwen_tokenizer,
    "MizzenAI/HPSv3": lambda folder: None,  # see fill_hps_v3
    **small_video_checkpoints.BUILDERS,
}


def snapshot(cache: Path, repository: str, revision: str) -> Path:
    """Where the hub cache keeps a commit of a repository."""
    if found := small_video_checkpoints.folder_of(cache, repository, revision):
        return found
    return cache / f"models--{repository.replace('/', '--')}" / "snapshots" / revision


def fill_cache(cache: Path, sources: Iterable[HubFiles], revision: Callable[[HubFiles], str]) -> None:
    """Write a small checkpoint for every source."""
    torch.manual_seed(0)
    for repository in dict.fromkeys(source.repository for source in sources):
        source = next(s for s in sources if s.repository == repository)
        folder = snapshot(cache, repository, revision(source))
        folder.mkdir(parents=True)
        BUILDERS[repository](folder)


def fill_hps_v3(python: Path, backbone: Path, weights: Path) -> None:
    """The small HPSv3, written by the environment that will read it."""
    subprocess.run([python, "-c", HPS_V3, backbone, weights / "HPSv3.safetensors"], check=True, cwd=ROOT)
