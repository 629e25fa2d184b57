"""What a setting must pass before a claim is judged at it: it is the instrument that is looked at.

Only the row that must learn the reward and its control with shuffled rewards count; how a row with diversity
does can neither pass a setting nor choose one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from didactic import mixture
from didactic.configuration import Checks
from didactic.mixture import HEIGHTS

LANDSCAPE = ["grid", "learning_rate", "samples", "reward_width", "heights"]  # what the two rows depend on
CENTRAL_MODE_FOUND = "central_mode_found"


@dataclass(frozen=True)
class Outcome:
    """Numbers of one landscape up to one training length, means over seeds, and which checks they pass.

    ``rise``: of the mean reward, as a share of what the base model leaves open; ``fall``: below its best;
    ``growth``: over the last quarter; ``modes``: covered where half of the rise is reached; ``drift``:
    largest move of the control's mean reward, as a share of the rise; ``chance``: share of seeds in which the
    control finds the central mode.
    """

    rise: float
    fall: float
    growth: float
    modes: float
    drift: float
    chance: float
    failed: tuple[str, ...]

    @property
    def passes(self) -> bool:
        return not self.failed


def _curve(scores: pd.DataFrame, method: str, measure: str, length: float) -> pd.Series:
    """Mean over seeds by share of the training, up to ``length``."""
    mine = scores[(scores["method"] == method) & (scores["measure"] == measure)]
    return mine[mine["length"] <= length + 1e-9].groupby("length")["value"].mean()


def check(scores: pd.DataFrame, length: float, checks: Checks) -> Outcome:
    """The checks at one landscape.

    Args:
        scores: method, seed, heights, length, measure, value; all of one landscape.
        length: share of the training that is judged, one that was measured.

    Raises:
        ValueError: the scores lack one of the two rows.
    """
    reward, control, modes = (
        _curve(scores, method, measure, length)
        for method, measure in (
            (checks.reward_row, "reward"),
            (checks.control_row, "reward"),
            (checks.reward_row, "modes"),
        )
    )
    for name, curve in ((checks.reward_row, reward), (checks.control_row, control)):
        if len(curve) < 2:
            raise ValueError(f"the checks look at the row {name!r}, of which there are no runs")
    start, end = reward.iloc[0], reward.iloc[-1]
    at_end = scores[np.isclose(scores["length"], length)]
    ceiling = max(HEIGHTS[scores["heights"].iloc[0]])
    late = reward[reward.index <= 0.75 * length + 1e-9].iloc[-1]
    half = modes[reward >= start + (end - start) / 2].iloc[0] if end > start else 0.0
    found = {
        "rise": (end - start) / (ceiling - start),
        "fall": reward.max() - end,
        "growth": end - late,
        "modes": half,
        "drift": (control - control.iloc[0]).abs().max() / (end - start) if end > start else np.inf,
        "chance": central_mode_found(at_end[at_end["method"] == checks.control_row])["value"].mean(),
    }
    held = {
        "rise": found["rise"] >= checks.least_rise,
        "fall": found["fall"] <= checks.most_fall,
        "growth": found["growth"] <= checks.most_growth,
        "modes": found["modes"] >= checks.modes_at_half,
        "drift": found["drift"] <= checks.most_drift,
        "chance": found["chance"] <= checks.most_found_by_control,
    }
    return Outcome(**found, failed=tuple(name for name, passed in held.items() if not passed))


def table(scores: pd.DataFrame, lengths: list[float], checks: Checks) -> pd.DataFrame:
    """One line per landscape and length: LANDSCAPE, length, step, numbers of ``Outcome``, failed, passes."""
    lines = []
    for values, part in scores.groupby(LANDSCAPE, sort=True):
        for length in lengths:
            outcome = check(part, length, checks)
            steps = part.loc[np.isclose(part["length"], length), "step"]
            head = dict(zip(LANDSCAPE, values, strict=True)) | {"length": length, "step": int(steps.max())}
            lines.append(head | vars(outcome) | {"passes": outcome.passes})
    return pd.DataFrame(lines)


def choose(checked: pd.DataFrame, heights: str) -> dict | None:
    """The single experiment's setting: of those that pass, the one that draws the fewest samples in training,
    then the sharpest reward. None where none passes."""
    able = checked[checked["passes"] & (checked["heights"] == heights)]
    if able.empty:
        return None
    able = able.assign(cost=able["step"] * able["samples"])
    return able.sort_values(["cost", "reward_width", "learning_rate"]).iloc[0].to_dict()


def describe(outcome: Outcome) -> str:
    """One sentence for a page."""
    names = {
        "rise": "the reward is not learnt",
        "fall": "the reward falls back",
        "growth": "the reward has no plateau yet",
        "modes": "all modes are lost at once",
        "drift": "shuffled rewards move the reward as well",
        "chance": "shuffled rewards find the central mode as well",
    }
    if outcome.passes:
        return "The setting passes the checks."
    return f"The setting fails the checks: {'; '.join(names[name] for name in outcome.failed)}."


def central_mode_found(scores: pd.DataFrame) -> pd.DataFrame:
    """The rows of ``central_share`` as 0 or 1: whether the central cluster counts as covered."""
    share = scores[scores["measure"] == "central_share"]
    found = (share["value"] >= mixture.COVERED).astype(float)
    return share.assign(measure=CENTRAL_MODE_FOUND, value=found)
