"""What ranks of `bench collectives` measured, and what it means for their group.

Of a call the shortest over the ranks counts: whoever came last waited for nobody.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

NO_COMMUNICATION = re.compile(r"harness_stamp|vectorized_elementwise|spin_kernel|Memset", re.I)
"""Kernels of the chain that are no call's."""


@dataclass
class Times:
    """What one rank measured, in ns: a value a round, and values a call; cold unless warm."""

    rounds_ns: list[float] = field(default_factory=list)
    stamps_ns: list[float] = field(default_factory=list)
    kernels_ns: list[float] = field(default_factory=list)
    warm_stamps_ns: list[float] = field(default_factory=list)
    warm_kernels_ns: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Found:
    """What a group measured; `times_ns` are those of kernels where they were recorded."""

    times_ns: list[float]
    stamps_ns: list[float]
    chain_ns: list[float]
    calls: int
    warm_ns: list[float] = field(default_factory=list)
    warm_stamps_ns: list[float] = field(default_factory=list)


def over_ranks(ranks: Sequence[Times], calls: int) -> Found:
    """Of a call the shortest over the ranks, of a chain timed as a whole the longest."""
    chains = [max(times) for times in zip(*(rank.rounds_ns for rank in ranks), strict=True)]
    stamps = _shortest([rank.stamps_ns for rank in ranks])
    warm_stamps = _shortest([rank.warm_stamps_ns for rank in ranks])
    kernels = _shortest([rank.kernels_ns for rank in ranks])
    warm = _shortest([rank.warm_kernels_ns for rank in ranks])
    times = kernels or stamps
    return Found(
        times_ns=times or chains,
        stamps_ns=stamps,
        chain_ns=chains,
        calls=len(times) or calls * len(chains),
        warm_ns=warm if kernels else warm_stamps,
        warm_stamps_ns=warm_stamps,
    )


def _shortest(ranks: Sequence[list[float]]) -> list[float]:
    """Of every call the shortest over the ranks; empty where a rank knows none."""
    return [min(times) for times in zip(*ranks, strict=False)]


@dataclass(frozen=True, order=True)
class Kernel:
    """Work on the device. All of one replay carries the correlation of its launch."""

    correlation: int
    start_ns: int
    duration_ns: int
    name: str


def by_call(kernels: Sequence[Kernel], calls: int) -> list[float]:
    """Time of each call's kernels, replay after replay; empty where they cannot be told apart."""
    times: list[float] = []
    for _, group in itertools.groupby(sorted(kernels), key=lambda kernel: kernel.correlation):
        replay = list(group)
        if len(replay) < 2 * calls:
            continue  # the meeting, not the chain: that has the stamps as well
        lengths = [k.duration_ns for k in replay if not NO_COMMUNICATION.search(k.name)]
        each, rest = divmod(len(lengths), calls)
        if rest or not each:
            return []
        times += [float(sum(lengths[k : k + each])) for k in range(0, len(lengths), each)]
    return times
