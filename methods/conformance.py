"""``python -m methods.conformance DIR``: check the implementation against reference cases.

Every ``DIR/*.json`` is ``{"function": name, "cases": [{"inputs": {...}, "expected": {...}}]}``. The
functions called here are those that training calls. One JSON line per expected key; exit status 1 if
any differs by more than 1e-4 relative + 1e-5 absolute (booleans exactly), a function is unknown or a case
lacks a key.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from methods import baseline_cases
from methods.ddrl import data_loss, unnormalised_log_ratio
from methods.diffusion_nft import diffusion_nft_loss, velocity_kl
from methods.maths import sde
from methods.maths.advantages import diversity_aware, group_advantages
from methods.maths.diversity import group_diversity, nearest_distance
from methods.maths.gate import GateShareController, gate, uncertainty
from methods.maths.official_code import ReferenceClock, micro_batch_kl
from methods.maths.policy_loss import clipped_policy_loss, gated_kl, gaussian_kl
from rewards.geneval_rules import overall_score, shares_by_tag
from rewards.ocr import ocr_reward

RELATIVE, ABSOLUTE = 1e-4, 1e-5


def _tensor(value) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def _groups(prompts: list) -> torch.Tensor:
    names = list(dict.fromkeys(prompts))
    return torch.tensor([names.index(p) for p in prompts])


def flow_sde_step(i: dict) -> dict:
    step = _step(sde.flow_sde_step, i, i["noise_level"])
    return {"mean": step.mean, "std": step.std, "log_prob": step.log_prob}


def flow_cps_step(i: dict) -> dict:
    step = _step(sde.flow_cps_step, i, i["noise_level"])
    return {"mean": step.mean, "std": step.std, "log_prob": step.log_prob}


def dance_sde_step(i: dict) -> dict:
    step = _step(sde.dance_sde_step, i, i["eta"])
    return {"mean": step.mean, "std_with_sqrt_dt": step.noise_std, "log_prob": step.log_prob}


def _step(function: Callable, i: dict, noise_level: float) -> sde.Step:
    return function(
        _tensor(i["velocity"]),
        _tensor(i["x"]),
        i["sigma"],
        i["sigma_next"],
        sigma_second=i.get("sigma_second"),
        noise_level=noise_level,
        x_next=_tensor(i["x_next"]),
    )


def advantages(i: dict) -> dict:
    rewards, groups, epsilon = _tensor(i["rewards"]), _groups(i["prompts"]), i.get("epsilon", 1e-4)
    plain = group_advantages(rewards, groups, "none")
    distance = nearest_distance(_tensor(i["features"]), groups)
    return {
        "group_std": group_advantages(rewards, groups, "group_std", epsilon),
        "global_std": group_advantages(rewards, groups, "global_std", epsilon),
        "no_std": plain,
        "nearest_distance": distance,
        "gardo_paper": diversity_aware(plain, distance, groups, "paper"),
        "gardo_official_code": diversity_aware(plain, distance, groups, "official_code"),
    }


def uncertainty_gate(i: dict, expected: dict) -> dict:
    proxy, auxiliary = _tensor(i["proxy"]), _tensor(i["auxiliary"])
    values = {reading: uncertainty(proxy, auxiliary, reading) for reading in ("paper", "official_code")}
    found = {f"uncertainty_{reading}": u for reading, u in values.items()}
    for key in expected:
        if match := re.fullmatch(r"gate_(paper|official_code)_k([\d.]+)", key):
            reading, share = match.group(1), float(match.group(2))
            found[key] = gate(values[reading], share, reading)
    return found


def gate_share_controller(i: dict) -> dict:
    found = {}
    for reading in ("paper", "official_code"):
        controller = GateShareController(i["initial_share"], i["window"], reading)
        found[reading] = [controller.update(mean) for mean in i["batch_means"]]
    return found


def clipped_policy_loss_and_kl(i: dict) -> dict:
    log_ratio = _tensor(i["log_prob"]) - _tensor(i["old_log_prob"])
    loss = clipped_policy_loss(log_ratio, _tensor(i["advantages"]), i["clip_range"], i["advantage_clip"])
    kl = gaussian_kl(_tensor(i["mean"]), _tensor(i["reference_mean"]), _tensor(i["std"]))
    gated = torch.tensor(i["gate"], dtype=torch.bool)
    counts = len(kl), int(gated.sum())
    return {
        "policy_loss": loss.mean(),
        "kl_per_sample": kl,
        "kl_mean": kl.mean(),
        "kl_gated_paper": gated_kl(kl, gated, *counts),
        "kl_gated_official_code": gated_kl(kl, gated, *counts, official_code=True),
    }


def ddrl_loss(i: dict) -> dict:
    log_ratio = unnormalised_log_ratio(_tensor(i["x_next"]), _tensor(i["mean"]), _tensor(i["old_mean"]))
    policy = clipped_policy_loss(log_ratio, _tensor(i["advantages"]), i["clip_range"], 5.0).mean()
    data = data_loss(_tensor(i["data_velocity"]), _tensor(i["data_x0"]), _tensor(i["data_noise"])).mean()
    return {
        "ratio_unnormalised": log_ratio.exp(),
        "policy_loss": policy,
        "data_loss": data,
        "loss": policy + i["data_beta"] * data,
    }


def diffusion_nft(i: dict) -> dict:
    velocity = _tensor(i["velocity"])
    latents = (_tensor(i[key]) for key in ("old_velocity", "x0", "noise", "t", "advantages"))
    policy = diffusion_nft_loss(velocity, *latents, i["beta"], i["advantage_clip"]).mean()
    kl = velocity_kl(velocity, _tensor(i["reference_velocity"])).mean()
    return {"policy_loss": policy, "kl": kl, "loss": policy + i["kl_coefficient"] * kl}


def _averages(i: dict, kl: torch.Tensor, unflagged: str) -> dict:
    """The public code's average of a KL per row (N,), and those it is compared with."""
    gated = torch.tensor(i["gate"], dtype=torch.bool)
    counts = len(kl), int(gated.sum())
    per_micro_batch = micro_batch_kl(kl, gated, torch.tensor(i["micro_batch"]), unflagged)
    return {
        "kl_per_sample": kl,
        "kl_per_micro_batch": per_micro_batch,
        "kl_official_code": per_micro_batch.mean(),
        "kl_paper": gated_kl(kl, gated, *counts),
        "kl_pooled": gated_kl(kl, gated, *counts, official_code=True),
        "kl_all": kl.mean(),
    }


def kl_average_official_code(i: dict) -> dict:
    kl = gaussian_kl(_tensor(i["mean"]), _tensor(i["reference_mean"]), _column(i["std"], i["mean"]))
    return _averages(i, kl, "zero")


def gardo_nft_kl(i: dict) -> dict:
    kl = velocity_kl(_tensor(i["velocity"]), _tensor(i["reference_velocity"]))
    found = _averages(i, kl, "all")
    official = found["kl_official_code"]
    return {**found, "kl_loss": i["kl_coefficient"] * official, "reset": bool(official > i["threshold"])}


def gardo_reference_reset(i: dict) -> dict:
    clock = ReferenceClock(i["variant"], i["threshold"])
    found = {"reset": [], "threshold": []}
    for epoch in i["kl"]:
        found["reset"].append(clock.start_epoch())
        found["threshold"].append(clock.threshold)
        for kl in epoch:
            clock.after_step(kl)
    return found


def _column(values: list, like: list) -> torch.Tensor:
    """(N,) with as many dimensions as ``like``."""
    return _tensor(values).reshape(-1, *[1] * (_tensor(like).dim() - 1))


def geneval_overall(i: dict) -> dict:
    tags, correct = i["tags"], [float(c) for c in i["correct"]]
    prompts: dict[tuple, float] = {}
    for tag, prompt, value in zip(tags, i["prompts"], correct, strict=True):
        prompts[tag, prompt] = max(prompts.get((tag, prompt), 0.0), value)
    return {
        "per_tag": list(shares_by_tag(tags, correct).values()),
        "overall": overall_score(tags, correct),
        "image_mean": sum(correct) / len(correct),
        "prompt_any": sum(prompts.values()) / len(prompts),
    }


def diversity(i: dict) -> dict:
    per_prompt = group_diversity(_tensor(i["features"]))
    return {"per_prompt": per_prompt, "diversity": per_prompt.mean()}


FUNCTIONS: dict[str, Callable] = {
    "flow_sde_step": flow_sde_step,
    "flow_cps_step": flow_cps_step,
    "dance_sde_step": dance_sde_step,
    "advantages": advantages,
    "uncertainty_gate": uncertainty_gate,
    "gate_share_controller": gate_share_controller,
    "clipped_policy_loss": clipped_policy_loss_and_kl,
    "ddrl_loss": ddrl_loss,
    "diffusion_nft_loss": diffusion_nft,
    "kl_average_official_code": kl_average_official_code,
    "gardo_nft_kl": gardo_nft_kl,
    "gardo_reference_reset": gardo_reference_reset,
    "geneval_overall": geneval_overall,
    "diversity": diversity,
    "ocr_reward": lambda i: {"reward": ocr_reward(i["prompt"], i["recognised"])},
    **baseline_cases.FUNCTIONS,
}


def compare(found, expected) -> tuple[float, bool]:
    """Largest absolute difference, and whether every element lies within tolerance."""
    wanted = torch.as_tensor(expected)
    if wanted.dtype == torch.bool:
        equal = torch.equal(torch.as_tensor(found), wanted)
        return (0.0 if equal else 1.0), equal
    wanted, found = wanted.double(), torch.as_tensor(found).double()
    if found.numel() == wanted.numel():
        found = found.reshape(wanted.shape)
    if found.shape != wanted.shape:
        return float("inf"), False
    error = (found - wanted).abs()
    return error.max().item(), bool((error <= ABSOLUTE + RELATIVE * wanted.abs()).all())


def _fault(function: str, case: int, what: str) -> dict:
    return {"function": function, "case": case, "key": what, "max_abs_error": None, "ok": False}


def check_file(path: Path) -> list[dict]:
    """One result per case and expected key."""
    try:
        content = json.loads(path.read_text())
        name, cases = content["function"], content["cases"]
    except (ValueError, KeyError, TypeError):
        return [_fault(path.name, 0, "not a file of reference cases")]
    if name not in FUNCTIONS:
        return [_fault(name, 0, "unknown function")]
    results = []
    for number, case in enumerate(cases):
        function = FUNCTIONS[name]
        try:
            extra = (case["expected"],) if function is uncertainty_gate else ()
            found = function(case["inputs"], *extra)
        except KeyError as missing:
            results.append(_fault(name, number, f"lacks {missing}"))
            continue
        for key, expected in case["expected"].items():
            error, ok = compare(found[key], expected) if key in found else (None, False)
            results.append({"function": name, "case": number, "key": key, "max_abs_error": error, "ok": ok})
    return results


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        print("usage: python -m methods.conformance DIR", file=sys.stderr)
        return 2
    results = [r for path in sorted(Path(arguments[0]).glob("*.json")) for r in check_file(path)]
    for result in results:
        print(json.dumps(result))
    return 0 if results and all(r["ok"] for r in results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
