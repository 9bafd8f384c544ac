"""The effect of B against A on every metric, with an interval and a word."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness_analysis.compare.load import Floats, RunData
from harness_analysis.compare.samples import (
    METRICS,
    SPREAD,
    Metric,
    Sample,
    sample_of,
    statistic,
)
from harness_analysis.compare.stats import (
    DRAWS,
    FEWEST_CLUSTERS,
    FEWEST_TO_RESAMPLE,
    QUANTILES,
    Counts,
    Interval,
    between_runs,
    block_counts,
    block_length,
    drawn_means,
    drawn_quantiles,
    from_draws,
)

BETTER, WORSE = "better", "worse"
NO_DIFFERENCE, CANNOT = "no difference shown", "cannot answer"
BEYOND = 5
"""Values that must lie beyond a percentile before it is compared."""
SEED = 20260701


@dataclass(frozen=True)
class Side:
    """One of what is compared: runs that repeat each other."""

    label: str
    runs: tuple[RunData, ...]


@dataclass(frozen=True)
class Effect:
    """One metric on both sides. `a` and `b` are means over the runs; None: unknown."""

    metric: str
    unit: str
    a: float | None
    b: float | None
    interval: Interval | None
    word: str
    reason: str = ""
    """Why there is no answer."""
    method: str = ""
    """What was resampled or assumed."""
    count_a: int = 0
    count_b: int = 0
    """Values behind `a` and `b`."""
    phase: str | None = None
    part: str | None = None
    rank: int | None = None

    @property
    def headline(self) -> bool:
        """Not a part of a breakdown."""
        return self.part is None


def pair_runs(a: Side, b: Side) -> tuple[tuple[RunData, ...], tuple[RunData, ...], bool]:
    """The runs of both sides, and whether the k-th of one was measured beside the k-th of the
    other: repeats of one sweep run in interleaved order."""
    if len(a.runs) == len(b.runs) >= 2:
        by_repeat: list[dict[Any, RunData]] = [
            {run.row.get("repeat"): run for run in side.runs} for side in (a, b)
        ]
        sweeps = {run.row.get("sweep_id") for side in (a, b) for run in side.runs}
        same = by_repeat[0].keys() == by_repeat[1].keys() and None not in by_repeat[0]
        if same and len(by_repeat[0]) == len(a.runs) and len(sweeps) == 1 and None not in sweeps:
            order = sorted(by_repeat[0])
            first, second = (tuple(runs[k] for k in order) for runs in by_repeat)
            return first, second, True
    return a.runs, b.runs, False


def headline_effects(a: Side, b: Side) -> list[Effect]:
    """Effects on speed, latency, energy and memory."""
    runs_a, runs_b, paired = pair_runs(a, b)
    found: list[Effect] = []
    for metric in METRICS:
        samples = [[sample_of(run, metric) for run in runs] for runs in (runs_a, runs_b)]
        if all(isinstance(sample, str) for side in samples for sample in side):
            found += [_absent(metric, str(samples[0][0]))] if metric.name == "j_per_token" else []
            continue
        found += _metric_effects(metric, samples[0], samples[1], paired)
    return found


def _absent(metric: Metric, reason: str) -> Effect:
    return Effect(metric.name, metric.unit, None, None, None, CANNOT, reason)


def _metric_effects(
    metric: Metric, a: Sequence[Sample | str], b: Sequence[Sample | str], paired: bool
) -> list[Effect]:
    known_a = [sample for sample in a if not isinstance(sample, str)]
    known_b = [sample for sample in b if not isinstance(sample, str)]
    paired = paired and len(known_a) == len(a) and len(known_b) == len(b)
    single = metric.cluster == "run"
    names = ("mean",) if single or metric.ratio else SPREAD
    within = None
    if len(known_a) == len(known_b) == 1 and not single:
        within = _draw_within(metric, known_a[0], known_b[0], names)
    found = []
    for name in names:
        label = metric.name if len(names) == 1 else f"{metric.name}_{name}"
        of_a, of_b = (np.array([statistic(s, name) for s in side]) for side in (known_a, known_b))
        counts = [sum(len(sample.values) for sample in side) for side in (known_a, known_b)]
        base = Effect(
            label, metric.unit, _mean(of_a), _mean(of_b), None, CANNOT,
            count_a=counts[0], count_b=counts[1],
        )  # fmt: skip
        reason = _why_not(name, a, b, counts, single)
        if not reason and within is not None:
            reason = within.reason
        if reason:
            found.append(dataclasses.replace(base, reason=reason))
        elif within is not None:
            found.append(_worded(base, within.interval(name), metric, within.method))
        else:
            interval = between_runs(of_a, of_b, paired, SEED)
            method = runs_method(len(known_a), len(known_b), paired)
            found.append(_worded(base, interval, metric, method))
    return found


def _mean(values: Floats) -> float | None:
    return float(values.mean()) if len(values) else None


def _why_not(
    name: str,
    a: Sequence[Sample | str],
    b: Sequence[Sample | str],
    counts: Sequence[int],
    single: bool,
) -> str:
    """Why no interval can be given; empty: one can."""
    for label, side in (("A", a), ("B", b)):
        missing = [sample for sample in side if isinstance(sample, str)]
        if len(missing) == len(side):
            return f"{label}: {missing[0]}"
    if single and sum(not isinstance(s, str) for s in (*a, *b)) < 3:
        return "one value a run: repeat the runs"
    if name in QUANTILES and min(counts) * (1 - QUANTILES[name]) < BEYOND and name != "p50":
        needed = round(BEYOND / (1 - QUANTILES[name]))
        return f"{min(counts)} values; {name} needs {needed}"
    return ""


def _worded(base: Effect, interval: Interval, metric: Metric, method: str) -> Effect:
    return dataclasses.replace(
        base, interval=interval, word=word_of(interval, metric.more_is_better), method=method
    )


def word_of(interval: Interval, more_is_better: bool = False) -> str:
    """Better or worse where the interval excludes zero."""
    if interval.low > 0:
        return BETTER if more_is_better else WORSE
    if interval.high < 0:
        return WORSE if more_is_better else BETTER
    return NO_DIFFERENCE


def runs_method(runs_a: int, runs_b: int, paired: bool) -> str:
    """What an interval between runs rests on."""
    how = "bootstrap" if min(runs_a, runs_b) >= FEWEST_TO_RESAMPLE else "Student"
    if paired:
        return f"{runs_a} pairs of runs, {how}"
    return f"{runs_a} against {runs_b} runs, {how}"


# -- one run each ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Within:
    """Draws within one run each, or the reason why there are none."""

    reason: str
    method: str = ""
    interval: Callable[[str], Interval] = lambda name: Interval(0, 0, 0, None, None, None, 0)


@dataclass(frozen=True)
class Blocks:
    """How the clusters of both runs are drawn."""

    counts_a: Counts
    counts_b: Counts
    units: float
    method: str


def draw_blocks(
    cluster: str, keys_a: Sequence[object], keys_b: Sequence[object], a: Floats, b: Floats
) -> Blocks | str:
    """Draws of both runs' clusters, the same ones where both have the same units of work.

    `a`, `b`: a value a cluster, in the order of time, by which blocks are measured.
    """
    fewest = min(len(keys_a), len(keys_b))
    if fewest < FEWEST_CLUSTERS:
        noun = {"batch": "batches"}.get(cluster, cluster + "s") if fewest != 1 else cluster
        return f"{fewest} {noun} in a single run: repeat the runs, or make it {FEWEST_CLUSTERS}"
    random = np.random.default_rng(SEED)
    if tuple(keys_a) == tuple(keys_b):
        block = max(block_length(b - a), block_length(a), block_length(b))
        counts = block_counts(fewest, block, DRAWS, random)
        method = f"one run each, the same {fewest} {cluster} units, blocks of {block}"
        return Blocks(counts, counts, fewest / block, method)
    blocks = [block_length(values) for values in (a, b)]
    drawn = [
        block_counts(len(values), block, DRAWS, random)
        for values, block in zip((a, b), blocks, strict=True)
    ]
    units = min(len(a) / blocks[0], len(b) / blocks[1])
    method = f"one run each, {len(a)} and {len(b)} {cluster} units, blocks of {max(blocks)}"
    return Blocks(drawn[0], drawn[1], units, method)


def _draw_within(metric: Metric, a: Sample, b: Sample, names: Sequence[str]) -> Within:
    blocks = draw_blocks(metric.cluster, a.keys, b.keys, a.series(), b.series())
    if isinstance(blocks, str):
        return Within(blocks)
    shares = [QUANTILES[name] for name in names if name in QUANTILES]
    drawn = []
    for sample, counts in ((a, blocks.counts_a), (b, blocks.counts_b)):
        columns = {"mean": drawn_means(sample.values, sample.weights, sample.cluster, counts)}
        if shares:
            found = drawn_quantiles(sample.values, sample.cluster, counts, shares)
            columns |= dict(zip(QUANTILES, found.T, strict=True))
        drawn.append(columns)

    def interval(name: str) -> Interval:
        a_now, b_now = statistic(a, name), statistic(b, name)
        return from_draws(a_now, b_now, drawn[0][name], drawn[1][name], blocks.units)

    return Within("", blocks.method, interval)
