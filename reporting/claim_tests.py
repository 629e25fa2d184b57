"""``config/claims.yaml``: what each claim says and the tests that decide it; a verdict has no field."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from core.settings import Settings, parse, read_yaml

KINDS = ("metric", "history", "vote", "mixture")
Verdict = Literal["reproduced", "not reproduced", "inconclusive", "not testable here"]
UNTESTABLE, BY_CONSTRUCTION = "not testable here", "by construction"  # the latter counts as no verdict
MIXTURE = "Gaussian mixture"  # where a claim about it stands for a base and a task


class ClaimTest(Settings):
    """``method`` (minus ``against``) must lie above (``higher``) or below a margin, or ``within`` bounds."""

    metric: str | None = Field(
        None, description="score at the last step: a metric, a group of them, or proxy"
    )
    history: str | None = Field(None, description="number logged in training")
    vote: str | None = Field(None, description="Delta-Vote by this metric or group")
    mixture: str | None = Field(None, description="measure of the Gaussian mixture")
    over: Literal["whole", "first half", "second half", "late growth"] = Field(
        "whole", description="of history"
    )
    method: str
    against: str | None = Field(None, description="a method, or a pattern whose every match is compared")
    optional: bool = Field(False, description="left out where its runs are absent")
    direction: Literal["higher", "lower", "within"]
    margin: float = Field(0.0, description="in the metric's own units; -0.03 and higher: not worse by 0.03")
    margin_share: float | None = Field(None, description="the margin as a share of the mean of against")
    margin_spread: float | None = Field(
        None, description="the margin in standard deviations of against, over prompts where they are known"
    )
    bounds: tuple[float, float] | None = Field(None, description="for within")
    bases: Literal["all", "first", "others"] = "all"

    @model_validator(mode="after")
    def _whole(self):
        if sum(getattr(self, kind) is not None for kind in KINDS) != 1:
            raise ValueError(f"a test looks at exactly one of {', '.join(KINDS)}")
        if (self.direction == "within") != (self.bounds is not None):
            raise ValueError("bounds belong to the direction within, and only to it")
        relative = self.margin_share is not None or self.margin_spread is not None
        if self.against is None and (self.vote or relative):
            raise ValueError("a vote, a margin_share and a margin_spread need against")
        if self.margin_share is not None and self.margin_spread is not None:
            raise ValueError("give margin_share or margin_spread, not both")
        return self


class Claim(Settings):
    statement: str
    source: str
    tasks: list[str] | None = Field(None, description="where the claim applies; none: every task")
    by_construction: str | None = Field(None, description="why it holds whatever is trained: not judged")
    caveat: str | None = Field(None, description="what its tests cannot exclude")
    tests: list[ClaimTest] = Field(min_length=1)


class People(Settings):
    """Between two methods, on a base and task: what makes people's votes count."""

    votes: int = Field(ge=1)
    voters: int = Field(ge=1)


class Claims(Settings):
    level: float = Field(gt=0, lt=1, description="of the intervals")
    people: People = Field(People(votes=100, voters=2), description="least votes and voters of two methods")
    groups: dict[str, list[str]] = Field({}, description="names for several metrics; those measured count")
    claims: dict[str, Claim]


def load(path: Path) -> Claims:
    """Raises ``ConfigError`` naming file and key."""
    return parse(Claims, read_yaml(path), str(path))
