"""Numbers of a run's training history (``history.parquet``, MLflow) by name, and what each says.

A claim can be about these. A loss that logs another number needs no line here until a claim names it.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

LOGGED = {
    "reward/proxy_mean": "proxy of the iteration's images, whatever the method was shown",
    "reward/proxy_std": "its standard deviation over them",
    "reward/proxy.*_mean": "proxy of one of the task's tags",
    "reward/*_mean": "another reward, its component (gold.sign), or diversity",
    "train/policy_loss": "the term of the rewards",
    "train/data_loss": "diffusion loss on data",
    "train/kl_loss": "KL to the reference policy as the loss has it, per row",
    "train/ema_kl_loss": "KL to an average of former policies",
    "train/ratio_mean": "probability ratio to the policy of the rollout",
    "train/ratio_deviation": "mean of |ratio - 1|",
    "train/clipped_share": "share of rows whose ratio lies outside the clip range",
    "train/clipped_share_step_*": "the same for one step of the sampler, as a share of all rows",
    "train/divergence": "Flow-DPPO: KL to the policy of the rollout",
    "train/outside_share": "Flow-DPPO: share of rows outside the trust region",
    "train/masked_share": "Flow-DPPO: share of rows that add no gradient",
    "train/implicit_reward": "CRD: mean size of the implicit reward",
    "train/implicit_accuracy": "Flow-DPO: share of pairs in the right order",
    "train/implicit_margin": "Flow-DPO: mean margin of the pairs",
    "train/pairs": "Flow-DPO: pairs of the iteration",
    "train/gate_k": "GARDO: share that the gate is to choose",
    "train/gated_share": "GARDO: share of images whose KL counts",
    "train/nearest_distance": "GARDO: mean distance of an image to its nearest in the group",
    "train/trained_share": "share of images that are trained on",
    "train/reference_reset": "1 where the reference policy was reset",
    "train/policy_distance": "norm of the iteration's change of the weights",
    "train/gradient_norm": "before clipping",
    "train/signal_to_noise": "of the gradient, from AdamW's means",
    "train/groups_without_spread": "share of groups whose rewards are all equal",
    "train/overflow": "1 where fp16's scaler skipped a step",
}


def is_logged(name: str) -> bool:
    """Whether a history can hold a number of this name."""
    return any(fnmatchcase(name, pattern) for pattern in LOGGED)
