"""``python -m benchmarks.true_size``: SD3.5-Medium at its true size, with random weights.

Writes a checkpoint of the public architecture (5 GB, once), opens it through the code that opens the real
one, and measures rollout, decoding and update of one group. Text encoders have the right widths and one layer
each: training never runs them. Writes ``benchmarks/results/<hardware>-sd3.5-medium.json`` and a table.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from benchmarks import rates
from benchmarks.measuring import hardware
from benchmarks.report import place, to_markdown, write
from core.command import count, set_threads, threads
from core.files import replacing, write_text
from pretraining.pipelines.tokenizers import build_clip_tokenizer, build_t5_tokenizer
from runs.resolve import resolve_run
from training import provenance
from training.trainer import Trainer

BASE, TASK = "sd3.5-medium", "paper_geneval"
PROMPTS = Path("resources/prompts/geneval_train.jsonl")
METHODS = ("grpo", "grpo_kl_small", "grpo_kl_large")  # no data, no auxiliary rewards
FREE = "edge_density"  # a reward without weights: what a reward costs is not measured here

# transformer/config.json and vae/config.json of stabilityai/stable-diffusion-3.5-medium
TRANSFORMER = {
    "sample_size": 128,
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 16,
    "num_layers": 24,
    "attention_head_dim": 64,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "caption_projection_dim": 1536,
    "pooled_projection_dim": 2048,
    "pos_embed_max_size": 384,
    "dual_attention_layers": tuple(range(13)),
    "qk_norm": "rms_norm",
}
AUTOENCODER = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 16,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "scaling_factor": 1.5305,
    "shift_factor": 0.0609,
}
CLIP_WIDTHS, CLIP_HEAD, T5_WIDTH, TOKENS = (768, 1280), 64, 4096, 77


def _clip(tokenizer, width: int) -> CLIPTextModelWithProjection:
    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=width,
            num_hidden_layers=1,
            num_attention_heads=width // CLIP_HEAD,
            max_position_embeddings=TOKENS,
            projection_dim=width,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def save_checkpoint(folder: Path, texts: list[str], transformer: dict | None = None) -> None:
    """The pipeline with random weights; ``transformer`` replaces some of its sizes."""
    torch.manual_seed(0)
    clip, t5 = build_clip_tokenizer(texts, TOKENS), build_t5_tokenizer(texts, 256)
    encoder = T5Config(vocab_size=len(t5), d_model=T5_WIDTH, d_kv=64, d_ff=64, num_layers=1, num_heads=1)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)  # in float32 it would take 10 GB on its way
    try:
        network = SD3Transformer2DModel(**{**TRANSFORMER, **(transformer or {})})
    finally:
        torch.set_default_dtype(before)
    pipeline = StableDiffusion3Pipeline(
        transformer=network,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=AutoencoderKL(**AUTOENCODER),
        text_encoder=_clip(clip, CLIP_WIDTHS[0]),
        tokenizer=clip,
        text_encoder_2=_clip(clip, CLIP_WIDTHS[1]),
        tokenizer_2=clip,
        text_encoder_3=T5EncoderModel(encoder),
        tokenizer_3=t5,
    )
    with replacing(folder) as temporary:
        pipeline.save_pretrained(temporary)


def open_trainer(checkpoint: Path, method: str, device: str, base: dict, training: dict) -> Trainer:
    """A trainer of the paper's task on the checkpoint, with a reward that needs no weights.

    Args:
        base: values in place of those of ``config/base_models/sd3.5-medium.yaml``.
        training: values in place of the task's.
    """
    run = resolve_run(BASE, TASK, method, 1, {})
    settings = run.training.model_copy(update=training)
    opened = {"path": str(checkpoint), "revision": None, "needs_gpu": False, **base}
    with TemporaryDirectory() as folder:
        lines = PROMPTS.read_text().splitlines(keepends=True)
        write_text(Path(folder) / "prompts.jsonl", "".join(lines[: settings.prompts_per_iteration]))
        rewarded = {"proxy": FREE, "auxiliary": [], "monitor": []}
        task = {**rewarded, "prompts": str(Path(folder) / "prompts.jsonl"), "tag_weights": {}}
        run = run.model_copy(
            update={
                "base_model": run.base_model.model_copy(update=opened),
                "task_settings": run.task_settings.model_copy(update=task),
                "training": settings,
                "start": None,
            }
        )
        return Trainer(run, Path(folder), device=device)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.true_size", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=Path("benchmarks/checkpoints/sd3.5-medium"))
    parser.add_argument(
        "--method", choices=METHODS, default="grpo_kl_large", help="static KL runs the reference on every row"
    )
    parser.add_argument("--images", type=count, default=24, help="of one group")
    parser.add_argument("--micro-batch", type=count, default=6)
    parser.add_argument("--size", type=count, default=512, help="pixels")
    parser.add_argument("--steps", type=count, default=10, help="of the rollout")
    parser.add_argument(
        "--trained-steps", type=count, help="of those, in the update; default: all but the last"
    )
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--repeats", type=count, default=3)
    parser.add_argument("--threads", type=threads, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    trained_steps = arguments.trained_steps or arguments.steps - 1
    if not 0 < trained_steps < arguments.steps:
        parser.error(f"--trained-steps must lie between 1 and {arguments.steps - 1}: the last has no noise")
    set_threads(arguments.threads)

    if not arguments.checkpoint.exists():
        save_checkpoint(arguments.checkpoint, PROMPTS.read_text().splitlines()[:8])
    base = {
        "image_size": arguments.size,
        "rollout_steps": arguments.steps,
        "gradient_checkpointing": arguments.gradient_checkpointing,
    }
    training = {
        "prompts_per_iteration": 1,
        "group_size": arguments.images,
        "gradient_steps": 1,
        "micro_batch": arguments.micro_batch,
        "sde_steps": trained_steps,
        "trained_steps": trained_steps,
    }
    trainer = open_trainer(arguments.checkpoint, arguments.method, arguments.device, base, training)
    weights = sum(p.numel() for n, p in trainer.model.transformer.named_parameters() if "lora_" not in n)
    result = {
        "hardware": hardware(arguments.threads),
        "git": provenance.git_state(str(arguments.out)),
        "setting": {"method": arguments.method, "parameters": weights, **base, **training},
        "repeats": arguments.repeats,
        "rates": rates.of(trainer, arguments.repeats),
    }
    write(place(arguments.out, result["hardware"], arguments.device, "-sd3.5-medium"), result)
    print(to_markdown(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
