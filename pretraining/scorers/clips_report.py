"""What the scorers of clips can do on clips they have not seen."""

from __future__ import annotations

import random

import torch

from pretraining.scorers import clips_data
from pretraining.scorers.clips_faults import FAULTS, corrupt_alike, visible
from pretraining.scorers.corruptions import FAMILIES
from pretraining.scorers.data import to_float
from pretraining.scorers.fitting import uniform
from rewards.clip_networks import ClipScorer, clips_in_chunks

HELD_OUT_SEED = 9_000_000
CLEAR, MILD = (0.6, 1.0), (0.3, 0.6)  # severities: nobody doubts which clip is the worse one; some do


def _share(better: torch.Tensor, worse: torch.Tensor) -> float:
    return (better > worse).double().mean().item()


def ranking_report(model: ClipScorer, n: int = 600, seed: int = HELD_OUT_SEED) -> dict[str, float]:
    """Shares of held-out pairs in which the better one has the higher grade.

    Keys, each beginning with its criterion:

    - ``vq_clear_<family>``, ``vq_mild_<family>``: a clip over itself with corrupted frames, severity 0.6 to 1
      or 0.3 to 0.6;
    - ``mq_clear_<fault>`` and ``mq_mild``: over itself with a fault of motion, where the fault is visible;
    - ``ta_right_over_<attribute>``, ``ta_right_over_other``: its caption over one that is wrong in an
      attribute, and over that of another clip that cannot hold for it.
    """
    prompts = clips_data.sample_prompts(n, seed)
    clips = to_float(clips_data.render_all(prompts, seed))
    captions = [prompt["prompt"] for prompt in prompts]
    generator, rng = torch.Generator().manual_seed(seed), random.Random(seed)
    vq, mq, ta = clips_in_chunks(model, clips, captions).unbind(1)
    result = {}
    for family in FAMILIES:
        for key, ends in (("clear", CLEAR), ("mild", MILD)):
            bad = corrupt_alike(clips, uniform(n, *ends, generator), family, generator)
            result[f"vq_{key}_{family}"] = _share(vq, clips_in_chunks(model, bad, captions)[:, 0])
    mild: list[tuple[torch.Tensor, torch.Tensor]] = []
    for fault in FAULTS:
        for key, ends in (("clear", CLEAR), ("mild", MILD)):
            bad = fault(clips, uniform(n, *ends, generator), generator).clamp(0, 1)
            rows = visible(clips, bad)
            worse = clips_in_chunks(model, bad, captions)[rows, 1]
            if key == "mild":
                mild.append((mq[rows], worse))
            else:
                result[f"mq_clear_{fault.__name__}"] = _share(mq[rows], worse)
    result["mq_mild"] = _share(*(torch.cat(side) for side in zip(*mild, strict=True)))
    choices = [clips_data.edits(prompt) for prompt in prompts]
    for attribute in sorted({attribute for choice in choices for attribute in choice}):
        rows = [i for i, choice in enumerate(choices) if attribute in choice]
        wrong = [rng.choice(choices[i][attribute]) for i in rows]
        result[f"ta_right_over_{attribute}"] = _share(
            ta[rows], clips_in_chunks(model, clips[rows], wrong)[:, 2]
        )
    agree = clips_data.Captions(prompts).may_agree(torch.arange(n))
    different = ~agree[torch.arange(n).roll(-1), torch.arange(n)]
    other = clips_in_chunks(model, clips, captions[1:] + captions[:1])[:, 2]
    result["ta_right_over_other"] = _share(ta[different], other[different])
    return result
