"""Values over repeats, with their 95 % intervals. Pure.

Means and ratios of means are computed in rational numbers: ideal scaling gives 1, not
0.9999999999999999. Intervals are Student's t; those of positive quantities are laid on the
logarithm (delta method), so that no time or ratio is ever negative.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

T_975 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
"""Student's t, 97.5 % quantile, for 1 to 30 degrees of freedom (any table of it)."""

Number = int | float | Fraction


@dataclass(frozen=True)
class Estimate:
    """A mean or ratio, the count it rests on, and its 95 % interval; no interval from one run."""

    value: float
    count: int
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Spread:
    """Mean, relative standard error and degrees of freedom of positive values."""

    mean: Fraction
    relative_error: float | None
    freedom: int


def t_quantile(freedom: float) -> float:
    """Of a fractional number the larger (wider) neighbour; beyond the table the normal's."""
    place = int(freedom)
    return T_975[place - 1] if 1 <= place <= len(T_975) else 1.96


def spread(values: Sequence[Number]) -> Spread | None:
    """What is needed of a sample; None of none, or where the mean is not positive."""
    if not values:
        return None
    exact = [Fraction(value) for value in values]
    mean = sum(exact, Fraction(0)) / len(exact)
    if mean <= 0:
        return None
    if len(exact) < 2:
        return Spread(mean, None, 0)
    variance = sum((value - mean) ** 2 for value in exact) / (len(exact) - 1)
    error = math.sqrt(variance / len(exact)) / float(mean)
    return Spread(mean, error, len(exact) - 1)


def mean(values: Sequence[Number | None], most: float | None = None) -> Estimate | None:
    """Mean of the known values; `most`: what the quantity cannot exceed, as 1 for a share."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    found = spread(known)
    if found is None:
        return Estimate(float(sum(Fraction(v) for v in known) / len(known)), len(known))
    low, high = _around(float(found.mean), found.relative_error, found.freedom)
    if most is not None and high is not None:
        high = min(high, most)
    return Estimate(float(found.mean), len(known), low, high)


def ratio(
    above: Sequence[Number], below: Sequence[Number], factor: Fraction = Fraction(1)
) -> Estimate | None:
    """factor * mean(above) / mean(below) of two independent samples of positive values.

    Degrees of freedom after Welch and Satterthwaite; `count` is the smaller sample's. None where
    a sample is empty.
    """
    first, second = spread(above), spread(below)
    if first is None or second is None:
        return None
    value = float(factor * first.mean / second.mean)
    count = min(len(above), len(below))
    if first.relative_error is None or second.relative_error is None:
        return Estimate(value, count)
    error = math.hypot(first.relative_error, second.relative_error)
    low, high = _around(value, error, _welch(first, second))
    return Estimate(value, count, low, high)


def _welch(first: Spread, second: Spread) -> float:
    assert first.relative_error is not None and second.relative_error is not None
    one, two = first.relative_error**2, second.relative_error**2
    below = one**2 / first.freedom + two**2 / second.freedom
    return (one + two) ** 2 / below if below > 0 else first.freedom + second.freedom


def _around(
    value: float, relative_error: float | None, freedom: float
) -> tuple[float | None, float | None]:
    if relative_error is None:
        return None, None
    # An interval wider than this says that nothing is known; it must not overflow.
    reach = math.exp(min(t_quantile(freedom) * relative_error, 50.0))
    return value / reach, value * reach
