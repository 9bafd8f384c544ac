"""Intervals: between runs that repeat each other, and between the steps of one run each.

Runs are the independent units. With several a side, the interval rests on one number a run:
Student's below `FEWEST_TO_RESAMPLE` runs (of three runs a bootstrap cannot show more than their
range, which misses the mean in a quarter of all cases), of positive quantities on the logarithm of
their ratio, as in scaling tables; the expanded percentile bootstrap from
there on (Hesterberg 2015, What Teachers Should Know about the Bootstrap, section 5). With one run
each, clusters (batches or steps) are resampled in blocks, because neighbours are alike; that
tells how finely these two runs were measured, and nothing about the next run.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int32]

CONFIDENCE = 0.95
DRAWS = 2000
FEWEST_TO_RESAMPLE = 8
FEWEST_CLUSTERS = 20
"""Steps or batches of one run; of fewer no block bootstrap is made."""
FEWEST_BLOCKS = 4
SHORTEST_BLOCK = 8
"""Where there are enough: steps resemble their neighbours more than a few of them can show."""
MOST_CELLS = 4_000_000
"""Numbers held at once while quantiles are drawn."""
QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True)
class Interval:
    """A difference B - A and its share of A's mean, each with the ends of its 95 % interval."""

    effect: float
    low: float
    high: float
    share: float | None
    share_low: float | None
    share_high: float | None
    freedom: float
    """Independent units behind it, less what was estimated from them."""
    logarithmic: bool = False
    """Laid on the logarithm of B / A, so that it is longer upwards."""


# -- between runs ----------------------------------------------------------------------------


def between_runs(a: Floats, b: Floats, paired: bool, seed: int = 0) -> Interval:
    """Interval of mean(b) - mean(a) of one number a run.

    Paired: `a[k]` and `b[k]` were measured side by side. One side may be a single run: then the
    spread of the other stands for both.

    Raises:
        ValueError: one run each, which says nothing about spread.
    """
    if len(a) + len(b) < 3:
        raise ValueError("one run each")
    if min(len(a), len(b)) >= FEWEST_TO_RESAMPLE:
        return _resampled_runs(a, b, paired, np.random.default_rng(seed))
    if min(a.min(), b.min()) > 0:
        return _on_the_logarithm(a, b, paired)
    for gone, left, sign in ((a, b, 1.0), (b, a, -1.0)):
        if not gone.any() and left.min() > 0:
            return _from_nothing(left, sign)
    mean_a, effect = float(a.mean()), float(b.mean() - a.mean())
    error, freedom = _error(a, b, paired)
    reach = _reach(error, freedom)
    low = effect - reach
    if min(a.min(), b.min()) >= 0:
        low = max(low, -mean_a)  # what is never negative cannot fall by more than all of it
    return _interval(effect, low, effect + reach, mean_a, freedom)


def _on_the_logarithm(a: Floats, b: Floats, paired: bool) -> Interval:
    """Of positive values: mean(b) / mean(a) with its relative error (delta method)."""
    mean_a, ratio = float(a.mean()), float(b.mean() / a.mean())
    error, freedom = _error(a / a.mean(), b / b.mean(), paired)
    factor = math.exp(min(_reach(error, freedom), 50.0))  # wider says that nothing is known
    low, high = ratio / factor - 1, ratio * factor - 1
    share = ratio - 1
    return Interval(
        share * mean_a, low * mean_a, high * mean_a, share, low, high, freedom, logarithmic=True
    )


def _from_nothing(values: Floats, sign: float) -> Interval:
    """What one side does not have at all: the other side's mean, and how well it is known."""
    mean, freedom = float(values.mean()), max(len(values) - 1.0, 1.0)
    error = _error_of_mean(values / mean) if len(values) > 1 else 1.0  # one run: not known
    factor = math.exp(min(_reach(error, freedom), 50.0))
    low, high = sorted((sign * mean / factor, sign * mean * factor))
    share = None if sign > 0 else -1.0
    return Interval(sign * mean, low, high, share, share, share, freedom)


def _reach(error: float, freedom: float) -> float:
    return student_quantile((1 + CONFIDENCE) / 2, freedom) * error


def _error(a: Floats, b: Floats, paired: bool) -> tuple[float, float]:
    if paired:
        return _error_of_mean(b - a), len(a) - 1.0
    return _error_of_difference(a, b)


def _error_of_mean(values: Floats) -> float:
    return float(values.std(ddof=1)) / math.sqrt(len(values))


def _error_of_difference(a: Floats, b: Floats) -> tuple[float, float]:
    """Standard error and degrees of freedom: Welch's; with one run a side the other's spread."""
    if min(len(a), len(b)) == 1:
        freedom = len(a) + len(b) - 2
        squares = float(((a - a.mean()) ** 2).sum() + ((b - b.mean()) ** 2).sum())
        return math.sqrt(squares / freedom * (1 / len(a) + 1 / len(b))), float(freedom)
    error_a, error_b = _error_of_mean(a), _error_of_mean(b)
    parts = error_a**4 / (len(a) - 1) + error_b**4 / (len(b) - 1)
    freedom_welch = (error_a**2 + error_b**2) ** 2 / parts if parts else len(a) + len(b) - 2.0
    return math.hypot(error_a, error_b), freedom_welch


def _resampled_runs(a: Floats, b: Floats, paired: bool, random: np.random.Generator) -> Interval:
    counts_a = _runs_counts(len(a), random)
    counts_b = counts_a if paired else _runs_counts(len(b), random)
    drawn_a, drawn_b = counts_a @ a / len(a), counts_b @ b / len(b)
    return from_draws(
        float(a.mean()), float(b.mean()), drawn_a, drawn_b, float(min(len(a), len(b)))
    )


def _runs_counts(runs: int, random: np.random.Generator) -> Counts:
    return _count(random.integers(0, runs, (DRAWS, runs)), runs)


# -- within one run each ---------------------------------------------------------------------


def block_length(series: Floats) -> int:
    """How many neighbours to resample together: until they are no longer alike.

    A straight trend is taken out first: that later steps take longer is no chance. At most so
    many that `FEWEST_BLOCKS` blocks remain.
    """
    size = len(series)
    place = np.arange(size) - (size - 1) / 2
    slope = float(place @ series) / float(place @ place) if size > 1 else 0.0
    rest = series - series.mean() - slope * place
    shortest = max(math.ceil(float(size) ** (1 / 3)), SHORTEST_BLOCK)
    if not float(rest @ rest) > 0:
        return int(max(1, min(shortest, size // FEWEST_BLOCKS)))
    limit = 2 / math.sqrt(size)
    alike: int = 0
    for lag in range(1, size // 4):
        if _likeness(rest, lag) < limit:
            break
        alike = lag
    # Neighbours look less alike in a short series than they are (Kendall 1954).
    near = min(_likeness(rest, 1) + (2 + 4 * max(_likeness(rest, 1), 0.0)) / size, 0.95)
    best = (
        shortest if near <= 0 else math.ceil(float(2 * near / (1 - near**2)) ** (2 / 3) * shortest)
    )
    return int(max(1, min(max(shortest, 2 * alike, best), size // FEWEST_BLOCKS)))


def _likeness(rest: Floats, lag: int) -> float:
    return float(rest[:-lag] @ rest[lag:]) / float(rest @ rest) if lag < len(rest) else 0.0


def block_counts(clusters: int, block: int, draws: int, random: np.random.Generator) -> Counts:
    """How often each cluster is drawn, a row a draw: circular blocks of neighbours."""
    blocks = math.ceil(clusters / block)
    starts = random.integers(0, clusters, (draws, blocks, 1))
    drawn = (starts + np.arange(block)) % clusters
    return _count(drawn.reshape(draws, -1)[:, :clusters], clusters)


def _count(drawn: NDArray[np.int64], clusters: int) -> Counts:
    rows = len(drawn)
    flat = drawn + np.arange(rows)[:, None] * clusters
    counted = np.bincount(flat.ravel(), minlength=rows * clusters)
    return counted.reshape(rows, clusters).astype(np.int32)


def drawn_means(
    values: Floats, weights: Floats | None, cluster: NDArray[np.int64], counts: Counts
) -> Floats:
    """Of every draw the mean of `values`, or the sum of `values` by that of `weights`."""
    clusters = counts.shape[1]
    over = np.bincount(cluster, weights=values, minlength=clusters)
    under = np.bincount(cluster, weights=weights, minlength=clusters)
    return np.asarray((counts @ over) / (counts @ under))


def drawn_quantiles(
    values: Floats, cluster: NDArray[np.int64], counts: Counts, shares: Sequence[float]
) -> Floats:
    """Of every draw the quantiles, a column each: the smallest value that reaches the share."""
    order = np.argsort(values, kind="stable")
    ordered, owner = values[order], cluster[order]
    found = np.empty((len(counts), len(shares)))
    step = max(1, MOST_CELLS // len(values))
    for start in range(0, len(counts), step):
        reached = np.cumsum(counts[start : start + step][:, owner], axis=1)
        for column, share in enumerate(shares):
            wanted = share * reached[:, -1:]
            found[start : start + step, column] = ordered[(reached >= wanted).argmax(axis=1)]
    return found


def from_draws(a: float, b: float, drawn_a: Floats, drawn_b: Floats, units: float) -> Interval:
    """Expanded percentile interval of b - a; `units`: independent ones that were resampled."""
    tails = expanded_tails(units)
    low, high = np.quantile(drawn_b - drawn_a, tails)
    effect = b - a
    low, high = min(float(low), effect), max(float(high), effect)
    return _interval(effect, low, high, a, units - 1)


def _interval(effect: float, low: float, high: float, of: float, freedom: float) -> Interval:
    if not of:
        return Interval(effect, low, high, None, None, None, freedom)
    size = abs(of)
    return Interval(effect, low, high, effect / size, low / size, high / size, freedom)


@functools.lru_cache(maxsize=256)
def expanded_tails(units: float) -> tuple[float, float]:
    """Percentiles to take so that few units do not make the interval too short."""
    units = max(units, 2.0)
    reach = student_quantile((1 + CONFIDENCE) / 2, units - 1) * math.sqrt(units / (units - 1))
    tail = 0.5 * math.erfc(reach / math.sqrt(2))
    return tail, 1 - tail


# -- Student's distribution ------------------------------------------------------------------


@functools.lru_cache(maxsize=64)
def _student_table(freedom: float) -> tuple[Floats, Floats]:
    """Angles and probabilities: t = sqrt(freedom) * tan(angle) has density ~ cos^(freedom - 1)."""
    angle = np.linspace(-math.pi / 2, math.pi / 2, 40_001)
    density = np.cos(angle).clip(0) ** (freedom - 1)
    summed = np.concatenate(([0.0], np.cumsum((density[1:] + density[:-1]) / 2)))
    return angle, summed / summed[-1]


def student_quantile(probability: float, freedom: float) -> float:
    """Quantile of Student's t; beyond 1,000 degrees of freedom that of 1,000."""
    freedom = min(max(round(freedom, 2), 1.0), 1000.0)
    angle, reached = _student_table(freedom)
    return math.sqrt(freedom) * math.tan(float(np.interp(probability, reached, angle)))


def chance(interval: Interval) -> float:
    """How often so large an effect shows where there is none (two-sided, by Student's t)."""
    effect, low, high = interval.effect, interval.low, interval.high
    if interval.logarithmic:
        shares = (interval.share, interval.share_low, interval.share_high)
        effect, low, high = (math.log1p(share) for share in shares if share is not None)
    width = max(high - effect, effect - low)
    if width <= 0:
        return 0.0 if effect else 1.0
    freedom = min(max(round(interval.freedom, 2), 1.0), 1000.0)
    size = abs(effect) / width * student_quantile((1 + CONFIDENCE) / 2, freedom)
    angle, reached = _student_table(freedom)
    return float(2 * (1 - np.interp(math.atan(size / math.sqrt(freedom)), angle, reached)))


def discoveries(chances: Sequence[float]) -> list[bool]:
    """Which of many effects to believe, so that of those at most `1 - CONFIDENCE` are false.

    Source: Benjamini and Hochberg 1995.
    """
    level = 1 - CONFIDENCE
    order = sorted(range(len(chances)), key=chances.__getitem__)
    allowed = [k for k, index in enumerate(order) if chances[index] <= level * (k + 1) / len(order)]
    kept = set(order[: allowed[-1] + 1]) if allowed else set()
    return [index in kept for index in range(len(chances))]
