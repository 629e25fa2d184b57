"""Reference cases of the baselines beside GARDO and DDRL, for ``methods.conformance``."""

from __future__ import annotations

from collections.abc import Callable

import torch

from methods.awm import bounded_advantages, weighted_log_prob
from methods.crd import implicit_reward, kl_weights, reward_matching_loss
from methods.diffusion_nft import optimality
from methods.flow_dpo import implicit_reward as preference_reward
from methods.flow_dpo import preference_loss, preference_pairs
from methods.flow_dppo import kept_rows, masked_policy_loss
from methods.grpo_guard import normalised_log_ratio
from methods.maths.best_of_n import best_of_n, best_of_n_kl
from methods.maths.policy_loss import clipped_policy_loss, gaussian_kl
from methods.maths.velocity import matching_error, velocity_kl


def _tensor(value) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def _column(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """(B,) with as many dimensions as ``like``."""
    return values.reshape(-1, *[1] * (like.dim() - 1))


def flow_dppo_loss(i: dict) -> dict:
    advantages, mean = _tensor(i["advantages"]), _tensor(i["mean"])
    ratio = (_tensor(i["log_prob"]) - _tensor(i["old_log_prob"])).exp()
    noise_std = _column(_tensor(i["noise_std"]), mean)
    noise_std = noise_std if i["scale_kl"] else torch.ones_like(noise_std)
    kl = gaussian_kl(mean, _tensor(i["old_mean"]), noise_std)
    kept = kept_rows(kl, ratio, advantages, i["kl_threshold"])
    loss = masked_policy_loss(ratio, advantages, kept)
    return {
        "kl_per_sample": kl,
        "kept": kept,
        "ratio": ratio,
        "loss_per_sample": loss,
        "policy_loss": loss.mean(),
        "high_kl_share": (kl >= i["kl_threshold"]).double().mean(),
        "masked_share": (~kept).double().mean(),
    }


def grpo_guard_loss(i: dict) -> dict:
    mean, old_mean, std, dt = (_tensor(i[key]) for key in ("mean", "old_mean", "std", "dt"))
    noise_std, step = std * (-dt).sqrt(), torch.tensor(i["step"])
    plain = _tensor(i["log_prob"]) - _tensor(i["old_log_prob"])
    log_ratio = normalised_log_ratio(plain, mean, old_mean, noise_std)

    def loss(log_ratio):
        return clipped_policy_loss(log_ratio, _tensor(i["advantages"]), i["clip_range"], i["advantage_clip"])

    # The released script takes the drift's mean over the rows of a step as well.
    drift = log_ratio / noise_std - plain
    of_step = torch.stack([drift[step == number].mean() for number in step])
    policy = (loss(log_ratio) / -dt).mean()
    found = {
        "log_ratio": log_ratio,
        "ratio": log_ratio.exp(),
        "policy_loss": policy,
        "policy_loss_unweighted": loss(log_ratio).mean(),
        "policy_loss_official_code": (loss(noise_std * (plain + of_step)) / -dt).mean(),
    }
    if "reference_mean" in i:
        kl = gaussian_kl(mean, _tensor(i["reference_mean"]), _column(std, mean)).mean()
        found |= {"kl": kl, "loss": policy + i.get("kl_coefficient", 0.0) * kl}
    return found


def crd_loss(i: dict) -> dict:
    velocity, target = _tensor(i["velocity"]), _tensor(i["noise"]) - _tensor(i["x0"])
    c, beta, coefficient = i["advantage_clip"], i["crd_beta"], i["kl_coefficient"]
    temperature = i["weight_temperature"] if i["weight_temperature"] >= 0 else None
    r = optimality(_tensor(i["advantages"]), c)
    h = implicit_reward(velocity, _tensor(i["old_velocity"]), target, i["adaptive"])
    scale = c / max(beta, 1e-8)

    def matching(rows: torch.Tensor) -> torch.Tensor:
        return reward_matching_loss(h[rows], r[rows], beta, i["loss"], temperature)

    unweighted = matching(torch.arange(len(r))).mean()
    kl = velocity_kl(velocity, _tensor(i["reference_velocity"]))
    weights = kl_weights(r, coefficient) if i["reward_adaptive_kl"] else torch.ones_like(r)
    kl_loss = coefficient * (weights * kl).mean()
    found = {
        "optimality": r,
        "implicit_reward": h,
        "unweighted_policy_loss": unweighted,
        "policy_loss": unweighted * scale,
        "kl_per_sample": kl,
        "kl_loss": kl_loss,
        "loss": unweighted * scale + kl_loss,
    }
    if "groups" in i:
        groups = torch.tensor(i["groups"])
        prompts = [(groups == group).nonzero().squeeze(1) for group in groups.unique()]
        found["policy_loss_per_prompt"] = scale * torch.cat([matching(rows) for rows in prompts]).mean()
    return found


WEIGHTINGS = {
    "Uniform": "uniform",
    "t": "t",
    "t**2": "t_squared",
    "huber": "huber",
    "ghuber": "ghuber",
}


def awm_loss(i: dict) -> dict:
    velocity, target, t = _tensor(i["velocity"]), _tensor(i["noise"]) - _tensor(i["x0"]), _tensor(i["t"])
    weighting, power, levels = WEIGHTINGS[i["weighting"]], i["ghuber_power"], i["steps"]

    def log_prob(v: torch.Tensor) -> torch.Tensor:
        return weighted_log_prob(matching_error(v, target), t, weighting, power)

    def policy_loss(log_ratio: torch.Tensor, advantages: torch.Tensor) -> torch.Tensor:
        # The advantages are bounded already.
        return clipped_policy_loss(log_ratio, advantages, i["clip_range"], torch.inf).mean()

    new, old = log_prob(velocity), log_prob(_tensor(i["old_velocity"]))
    advantages = bounded_advantages(_tensor(i["advantages"]), i["advantage_clip"], i.get("advantage_max"))
    policy = policy_loss(new - old, advantages)
    apart = velocity_kl(velocity, _tensor(i["reference_velocity"]))
    variance = 0.49 * t / (1 - t.clamp(max=0.99))
    found = {
        "log_prob": new,
        "old_log_prob": old,
        "ratio": (new - old).exp(),
        "policy_loss": policy,
        "kl": apart.mean(),
        "kl_elbo": (apart / (2 * variance)).mean(),
        "loss": policy + i["kl_coefficient"] * apart.mean(),
    }
    if levels > 1:
        # Rows are step by step, so the first of every image's levels stand first; they share one advantage.
        of_images = (new - old).unflatten(0, (levels, -1)).mean(0)
        found["policy_loss_sum_first"] = policy_loss(of_images, advantages[: len(of_images)])
    if "ema_velocity" in i:
        found["ema_kl"] = velocity_kl(velocity, _tensor(i["ema_velocity"])).mean()
        found["loss"] = found["loss"] + i.get("ema_kl_coefficient", 0.0) * found["ema_kl"]
    return found


def flow_dpo_loss(i: dict) -> dict:
    noise, found, reward = _tensor(i["noise"]), {}, {}
    for side in ("chosen", "rejected"):
        target = noise - _tensor(i[f"{side}_x0"])
        error, reference = (
            matching_error(_tensor(i[f"{side}_{whose}velocity"]), target) for whose in ("", "reference_")
        )
        reward[side] = preference_reward(error, reference, i["beta"])
        found |= {f"{side}_error": error, f"{side}_reference_error": reference}
        found[f"implicit_reward_{side}"] = reward[side].mean()
    logit = reward["chosen"] - reward["rejected"]
    found |= {"logit": logit, "loss": preference_loss(logit).mean()}
    return {**found, "implicit_accuracy": (reward["chosen"] > reward["rejected"]).double().mean()}


def dpo_pairs(i: dict) -> dict:
    groups, advantages = torch.tensor(i["groups"]), _tensor(i["advantages"])
    chosen, rejected = preference_pairs(advantages, groups, "itself")
    found = {"chosen": chosen, "rejected": rejected}
    chosen, rejected = preference_pairs(advantages, groups, "second_and_first")
    return {**found, "chosen_flow_grpo": chosen, "rejected_flow_grpo": rejected}


def best_of_n_estimate(i: dict) -> dict:
    rewards, sizes = _tensor(i["rewards"]), i["n"]
    per_prompt = torch.stack([best_of_n(rewards, rewards, n) for n in sizes], dim=1)
    found = {
        "expected_max_per_prompt": per_prompt,
        "expected_max": per_prompt.mean(0),
        "kl": [best_of_n_kl(n) for n in sizes],
    }
    if "gold" in i:
        gold = _tensor(i["gold"])
        found["expected_gold"] = torch.stack([best_of_n(rewards, gold, n).mean() for n in sizes])
    return found


FUNCTIONS: dict[str, Callable[[dict], dict]] = {
    "flow_dppo_loss": flow_dppo_loss,
    "grpo_guard_loss": grpo_guard_loss,
    "crd_loss": crd_loss,
    "awm_loss": awm_loss,
    "flow_dpo_loss": flow_dpo_loss,
    "dpo_pairs": dpo_pairs,
    "best_of_n": best_of_n_estimate,
}
