"""The metrics of a comparison, and each run's values of them in clusters that hang together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness_analysis.compare.load import Floats, Key, PhaseUnits, RunData
from harness_analysis.compare.stats import QUANTILES

SPREAD = ("mean", *QUANTILES)
"""Statistics of a latency."""


@dataclass(frozen=True)
class Metric:
    """What is compared: where more of it is better, and what its values are drawn by."""

    name: str
    unit: str
    more_is_better: bool = False
    cluster: str = "run"
    """What is drawn as a whole when runs are resampled within: step or batch; run: one value."""
    ratio: bool = False
    """Sum over sum, as tokens per second; otherwise mean and quantiles."""


METRICS = (
    Metric("tok_per_s", "tokens/s", True, "batch", ratio=True),
    Metric("ttft", "ns", cluster="batch"),
    Metric("tpot", "ns", cluster="batch"),
    Metric("e2e", "ns", cluster="batch"),
    Metric("itl", "ns", cluster="step"),
    Metric("step", "ns", cluster="step"),
    Metric("cadence", "ns", cluster="step"),
    Metric("mixed", "ns", cluster="step"),
    Metric("prefill", "ns", cluster="batch"),
    Metric("j_per_token", "J"),
    Metric("gpu_memory", "bytes"),
    Metric("host_memory", "bytes"),
    Metric("whole_run", "s"),
    Metric("startup", "s"),
    Metric("load", "s"),
    Metric("preprocess", "s"),
)
BY_NAME = {metric.name: metric for metric in METRICS}


@dataclass(frozen=True)
class Sample:
    """Values of one metric in one run.

    cluster: index into `keys` of each value; keys in the order of time. weights: denominators of
    a ratio metric.
    """

    values: Floats
    cluster: NDArray[np.int64]
    keys: tuple[Key, ...]
    weights: Floats | None = None

    def series(self) -> Floats:
        """One value a cluster, in the order of time."""
        size = len(self.keys)
        over = np.bincount(self.cluster, weights=self.values, minlength=size)
        under = np.bincount(self.cluster, weights=self.weights, minlength=size)
        return np.asarray(over / under)


def sample_of(run: RunData, metric: Metric) -> Sample | str:
    """A run's values of a metric, or why it has none."""
    if metric.name in run.single:
        return Sample(np.array([run.single[metric.name]]), np.zeros(1, dtype=np.int64), ((0,),))
    if metric.cluster == "run":
        return run.why_not.get(metric.name, f"no {metric.name} phase was recorded")
    if metric.name == "tok_per_s":
        return _throughput(run)
    if metric.name in run.requests.latencies:
        return _sample(run.requests.keys, run.requests.latencies[metric.name]) or "no requests"
    if metric.name == "itl":
        return _sample(*run.gaps) or "no times of tokens"
    phase = {"step": "decode", "cadence": "decode"}.get(metric.name, metric.name)
    units = run.phases.get(phase)
    if units is None:
        return f"no {phase} units"
    keys, values = _cadences(units) if metric.name == "cadence" else (units.keys, spans(units))
    return _sample(keys, values) or f"no {metric.name} of a {phase} unit"


def spans(units: PhaseUnits) -> Floats:
    """Of every unit the latest end minus the earliest start over the ranks."""
    return np.asarray(
        np.nanmax(units.start + units.window, axis=1) - np.nanmin(units.start, axis=1)
    )


def _cadences(units: PhaseUnits) -> tuple[list[Key], Floats]:
    """From the end of a step to the end of the very next of the same micro-batch."""
    ends = np.nanmax(units.start + units.window, axis=1)
    last: dict[Key, tuple[int, float]] = {}
    keys, values = [], []
    for key, end in zip(units.keys, ends.tolist(), strict=True):
        work = (key[0], key[1], key[3])
        before, ended = last.get(work, (None, 0.0))
        if before == key[2] - 1:  # between them none was left out
            keys.append(key)
            values.append(end - ended)
        last[work] = key[2], end
    return keys, np.array(values, dtype=float)


def _throughput(run: RunData) -> Sample | str:
    """Output tokens and seconds of every measured batch."""
    begin: dict[Key, float] = {}
    end: dict[Key, float] = {}
    for units in run.phases.values():
        first = np.nanmin(units.start, axis=1).tolist()
        last = np.nanmax(units.start + units.window, axis=1).tolist()
        for key, start, stop in zip(units.keys, first, last, strict=True):
            batch = key[:2]
            begin[batch] = min(begin.get(batch, start), start)
            end[batch] = max(end.get(batch, stop), stop)
    tokens = dict.fromkeys(begin, 0.0)
    for key, count in zip(run.requests.keys, run.requests.tokens.tolist(), strict=True):
        if key in tokens and np.isfinite(count):
            tokens[key] += count
    if not any(tokens.values()):
        return "no tokens were counted"
    batches = sorted(begin, key=begin.__getitem__)
    seconds = np.array([(end[key] - begin[key]) / 1e9 for key in batches])
    found = np.array([tokens[key] for key in batches])
    return Sample(found, np.arange(len(batches)), tuple(batches), seconds)


def _sample(keys: Sequence[Key], values: Floats) -> Sample | None:
    """Values with their clusters; unknown ones left out; None: nothing is known."""
    known = np.isfinite(values)
    if not known.any():
        return None
    index: dict[Key, int] = {}
    cluster = [index.setdefault(key, len(index)) for key, ok in zip(keys, known, strict=True) if ok]
    return Sample(values[known], np.array(cluster, dtype=np.int64), tuple(index))


def statistic(sample: Sample, name: str) -> float:
    """The mean (of a ratio metric sum over sum) or a quantile of a run's values."""
    if name in QUANTILES:
        return float(np.quantile(sample.values, QUANTILES[name]))
    if sample.weights is not None:
        return float(sample.values.sum() / sample.weights.sum())
    return float(sample.values.mean())
