"""The knee of a batch sweep: from where on larger batches stop paying. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from harness_analysis.scaling.intervals import Estimate

PAYS = 0.5
"""A larger batch pays while throughput grows by at least this share of what the batch grows."""


@dataclass(frozen=True)
class Knee:
    """`size`: the last batch that paid. `reached`: a larger one was tried and did not."""

    size: int
    reached: bool
    next_size: int | None = None
    gain: float | None = None
    """(throughput ratio - 1) / (batch ratio - 1) of the step to `next_size`."""
    certain: bool | None = None
    """Whether the intervals of the two throughputs put the gain on one side; None: one run."""

    def sentence(self) -> str:
        """What it says, in words."""
        if not self.reached:
            return f"no knee up to batch {self.size}: every larger batch paid"
        assert self.gain is not None
        text = (
            f"knee at batch {self.size}: going to {self.next_size} gives "
            f"{100 * self.gain:.0f} % of the throughput that the larger batch could give"
        )
        if self.certain is None:
            return f"{text} (one run each: uncertain)"
        return text if self.certain else f"{text} (within the noise of the repeats)"


def find_knee(points: Sequence[tuple[int | None, Estimate | None]]) -> Knee | None:
    """The knee of (batch size, throughput) in ascending order; None of fewer than two points."""
    known = [(size, value) for size, value in points if size and value is not None]
    if len(known) < 2:
        return None
    for (size, here), (larger, there) in itertools.pairwise(known):
        gain = _gain(there.value / here.value, larger / size)
        if gain < PAYS:
            return Knee(size, True, larger, gain, _certain(here, there, larger / size))
    return Knee(known[-1][0], False)


def _gain(throughput: float, batch: float) -> float:
    return (throughput - 1) / (batch - 1) if batch > 1 else 0.0


def _certain(here: Estimate, there: Estimate, batch: float) -> bool | None:
    if here.low is None or there.high is None:
        return None
    return _gain(there.high / here.low, batch) < PAYS
