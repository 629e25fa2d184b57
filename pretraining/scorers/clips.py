"""Train the scorers of clips and write their weights and held-out report.

``python -m pretraining.scorers.clips --out FOLDER`` trains both networks, each in about three minutes on one
CPU thread. The same seed gives the same weights.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch

from core.command import threads
from core.files import write_json
from pretraining.fitting import fit
from pretraining.scorers.clips_data import Clips
from pretraining.scorers.clips_faults import at_fault, corrupt_alike, visible
from pretraining.scorers.clips_report import ranking_report
from pretraining.scorers.data import to_float
from pretraining.scorers.fitting import chosen, save, seeded, uniform
from rewards.clip_networks import ClipConv3d, ClipScorer, FramesCNN, clips_in_chunks

REPORT = "clip_scorers.json"
CLIPS = 12_000
REFERENCE = 1_000  # clips of a seed range of their own that z-scores are relative to
REFERENCE_SEED = 8_000_000
WRONG = 8  # wrong captions per clip and step
BATCH = 32
MILD = 0.25  # greatest severity of corruptions that a better clip may have as well
RECIPES: dict[str, dict] = {
    "scene_video_score": {"tower": FramesCNN, "family": "A", "seed": 21, "clips": 3_000_000, "steps": 1150},
    "scene_video_score_unseen": {
        "tower": ClipConv3d,
        "family": "B",
        "seed": 22,
        "clips": 4_000_000,
        "steps": 1500,
    },
}


def loss_of_batch(
    model: ClipScorer, clips: Clips, family: str, generator: torch.Generator
) -> Callable[[], torch.Tensor]:
    """One batch's loss, of preferences by each criterion.

    VQ prefers the cleaner of two clips, MQ the one without a fault of motion, TA the right caption of a clip
    over wrong ones and those of others, and the right clip of a caption. Half of the better clips are
    slightly corrupted, and so are their rivals in MQ.
    """
    half = BATCH // 2

    def loss() -> torch.Tensor:
        index, drawn = clips.draw(BATCH, generator)
        better = corrupt_alike(drawn, uniform(BATCH, -MILD, MILD, generator).clamp(min=0), family, generator)
        dirty = corrupt_alike(drawn[:half], uniform(half, 0.3, 1, generator), family, generator)
        moved_badly = at_fault(better[half:], uniform(half, 0.3, 1, generator), generator)
        quality, embedding = model.clip_terms(torch.cat([better, dirty, moved_badly]))
        high_vq, high_mq = quality[:half, 0], quality[half:BATCH, 1]
        low_vq, low_mq = quality[BATCH : BATCH + half, 0], quality[BATCH + half :, 1]
        low_mq = low_mq.masked_fill(~visible(better[half:], moved_badly), -torch.inf)
        clip = embedding[:BATCH]
        right = model.caption_terms(clips.captions.right(index))
        wrong = model.caption_terms(clips.captions.wrong(index, WRONG, generator))
        scores = right @ clip.T  # of caption i with clip j
        own, others = scores.diagonal(), scores.masked_fill(clips.captions.may_agree(index), -torch.inf)
        to_wrong = (clip[:, None] * wrong).sum(-1)
        agreement = chosen(own, others.T, to_wrong) + chosen(own, others)
        return agreement + chosen(high_vq, low_vq[:, None]) + chosen(high_mq, low_mq[:, None])

    return loss


@torch.no_grad()
def normalise(model: ClipScorer, clips: torch.Tensor, captions: list[str]) -> None:
    """Make ``z_scores`` relative to clips (N, F, 3, H, W) in [0, 1] and their own captions."""
    grades = clips_in_chunks(model, clips, captions)
    model.mean.copy_(grades.mean(0))
    model.std.copy_(grades.std(0))


def train(name: str, scale: float = 1.0) -> ClipScorer:
    """One of ``RECIPES``; ``scale`` is a factor on clips and steps."""
    recipe = RECIPES[name]
    clips = Clips(max(64, round(CLIPS * scale)), recipe["clips"])
    generator = seeded(recipe["seed"])
    model = ClipScorer(recipe["tower"]())
    steps = max(8, round(recipe["steps"] * scale))
    model = fit(model, steps, 3e-3, name, loss_of_batch(model, clips, recipe["family"], generator))
    reference = Clips(max(64, round(REFERENCE * scale)), REFERENCE_SEED)
    normalise(model, to_float(reference.clips), [prompt["prompt"] for prompt in reference.prompts])
    return model


def train_all(out: Path, scale: float = 1.0) -> None:
    """Write the weights of all ``RECIPES`` and ``REPORT``."""
    report = {}
    for name in RECIPES:
        start = time.process_time()
        model = train(name, scale)
        print(f"{name}: trained in {time.process_time() - start:.0f} s of CPU")
        save(model, out / f"{name}.safetensors")
        report[name] = {key: round(value, 4) for key, value in ranking_report(model).items()}
        for key, value in report[name].items():
            print(f"  {key:<28}{value:.3f}")
    write_json(out / REPORT, report)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pretraining.scorers.clips", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help=f"folder for the weights and {REPORT}")
    parser.add_argument("--threads", type=threads, default=1, help="CPU threads of torch")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on all training lengths")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    train_all(arguments.out, arguments.scale)


if __name__ == "__main__":
    main()
