"""A finding, and when a difference between units is one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

MATERIAL_SHARE = 0.02
"""What is named must cost at least this share of the phase."""
SIGNIFICANCE = 5e-3
"""Ten of ten units, eleven of twelve, 16 of 19: windows of a profiler are that short, and hold a
first step unlike the others. In a group of two at rest, one rank in 300 is late so often by chance;
it is named only if that also costs `MATERIAL_SHARE`."""
MIN_UNITS = 10


@dataclass(frozen=True)
class Finding:
    """One row of the table `findings`, without its position."""

    severity: str
    kind: str
    text: str
    rank: int | None = None
    phase: str | None = None
    value_ns: int | None = None
    share: float | None = None
    floor_share: float | None = None
    evidence: str | None = None


def percent(share: float | None) -> str:
    """A share for a sentence."""
    if share is None:
        return "an unknown share"
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.1f} %"


def steady(excess_ns: np.ndarray, share: float) -> bool:
    """Whether something takes longer in most units, and at a material cost.

    `excess_ns`: a value a unit, for a late rank the waiting for it minus that for the worst other.
    Sign test (one-sided, binomial) at `SIGNIFICANCE`, and the median must be positive.
    """
    decided = excess_ns[excess_ns != 0]
    if len(decided) < MIN_UNITS or share < MATERIAL_SHARE or np.median(decided) <= 0:
        return False
    return sign_test(int((decided > 0).sum()), len(decided)) < SIGNIFICANCE


def sign_test(successes: int, trials: int) -> float:
    """P(X >= successes) for X binomial(trials, 1/2), exact, in logarithms."""
    if trials == 0:
        return 1.0
    base = math.lgamma(trials + 1) - trials * math.log(2)
    terms = [
        base - math.lgamma(k + 1) - math.lgamma(trials - k + 1)
        for k in range(successes, trials + 1)
    ]
    top = max(terms)
    return min(1.0, math.exp(top) * sum(math.exp(term - top) for term in terms))
