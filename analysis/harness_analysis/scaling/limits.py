"""What limits a configuration: POP's efficiencies, and the part that takes the time. Pure.

POP: the performance factors of the POP Centre of Excellence (pop-coe.eu), multiplicative.
Limits: the time beyond ideal scaling, divided over the parts of the breakdown, additive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from harness_analysis.scaling.facts import UNRESOLVED_AT_MOST, RankTime, RunFacts, unresolved
from harness_schemas.vocabulary import PARTS


@dataclass(frozen=True)
class Pop:
    """Parallel efficiency and its two factors."""

    load_balance: float
    communication_efficiency: float
    of_decode: bool = False
    """Whether it is of decode alone, since other phases are not resolved."""

    @property
    def parallel_efficiency(self) -> float:
        """Share of the ranks' time that is useful."""
        return self.load_balance * self.communication_efficiency


@dataclass(frozen=True)
class Limit:
    """The part that took most of the time beyond ideal scaling, as a share of all the time."""

    part: str
    share: float


def pop(run: RunFacts) -> Pop | None:
    """Load balance = mean(useful) / max(useful); communication efficiency = max(useful) / window.

    Of decode alone where only that is resolved. None where computing is not resolved on every
    rank: it is unknown, or more than `UNRESOLVED_AT_MOST` of the windows is.
    """
    return _pop(run.ranks, run.world_size) or _pop(run.decode, run.world_size, of_decode=True)


def _pop(
    ranks: Sequence[RankTime], world_size: int | None, *, of_decode: bool = False
) -> Pop | None:
    useful = [rank.compute_ns for rank in ranks]
    known = [value for value in useful if value is not None]
    unknown = unresolved(ranks)
    if not known or len(known) < len(useful) or len(useful) != world_size:
        return None
    if unknown is None or unknown > UNRESOLVED_AT_MOST or max(known) <= 0:
        return None
    window = max(rank.window_ns for rank in ranks)
    return Pop(sum(known) / len(known) / max(known), min(1.0, max(known) / window), of_decode)


def mean_parts(runs: Sequence[RunFacts]) -> dict[str, Fraction] | None:
    """Time of each part, mean over ranks and runs; None where a rank lacks its breakdown.

    A part that no rank has evidence for is left out; its time is in another (`unresolved`).
    """
    ranks = [rank for run in runs for rank in run.ranks]
    if not ranks or any(len(run.ranks) != run.world_size for run in runs):
        return None
    found = {}
    for part in PARTS:
        known = [value for rank in ranks if (value := rank.parts.get(part)) is not None]
        if known:
            found[part] = Fraction(sum(known), len(ranks))
    return found


def limit(
    base: Mapping[str, Fraction] | None, here: Mapping[str, Fraction] | None, ideal: Fraction
) -> Limit | None:
    """The part that grew most over `ideal` times its time in the base.

    None where a breakdown is missing, or where no part grew.
    """
    if base is None or here is None:
        return None
    window = sum(here.values(), Fraction(0))
    excess = {part: value - ideal * base.get(part, Fraction(0)) for part, value in here.items()}
    part = max(excess, key=lambda name: excess[name], default=None)
    if part is None or window <= 0 or excess[part] <= 0:
        return None
    return Limit(part, float(excess[part] / window))


def largest(here: Mapping[str, Fraction] | None) -> Limit | None:
    """Of the base itself: the part that takes most of its time."""
    return limit({}, here, Fraction(1))
