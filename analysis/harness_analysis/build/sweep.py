"""Interval algebra: one sweep divides windows among classes by precedence.

Everything is int64 nanoseconds; intervals are half open [start, end). Complexity of every
function here: O(n log n) time, O(n) memory, n = intervals + windows, on one rank at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.int64]

POINTS_AT_ONCE = 1 << 19
"""Moments at which something changes that are looked at together: a rank may have millions."""


@dataclass(frozen=True)
class Intervals:
    """Intervals of one class, in any order, overlapping or not."""

    start: Times
    end: Times

    @staticmethod
    def empty() -> Intervals:
        """No intervals."""
        nothing = np.empty(0, dtype=np.int64)
        return Intervals(nothing, nothing)

    def sound(self) -> Intervals:
        """Without those that are empty or reversed."""
        keep = self.end > self.start
        return Intervals(self.start[keep], self.end[keep])


def joined(one: Intervals, two: Intervals) -> Intervals:
    """The intervals of both; without a copy where one is empty."""
    if not len(two.start) or not len(one.start):
        return one if len(one.start) else two
    return Intervals(np.concatenate([one.start, two.start]), np.concatenate([one.end, two.end]))


def union(intervals: Intervals) -> Intervals:
    """The same instants as disjoint intervals in order."""
    if _is_disjoint(intervals):  # as kernels of one stream are: nothing is copied
        return intervals
    work = intervals.sound()
    if len(work.start) == 0:
        return Intervals.empty()
    order = np.argsort(work.start, kind="stable")
    start, reach = work.start[order], np.maximum.accumulate(work.end[order])
    first = np.ones(len(start), dtype=bool)
    first[1:] = start[1:] > reach[:-1]
    last = np.append(first[1:], True)
    return Intervals(start[first], reach[last])


def _is_disjoint(intervals: Intervals) -> bool:
    """Whether intervals are in order and apart, and none is empty."""
    start, end = intervals.start, intervals.end
    return bool((end > start).all() and (start[1:] > end[:-1]).all())


def divide(edges: Times, classes: Sequence[Intervals]) -> NDArray[np.int64]:
    """Time of every class inside every window, each instant given to the first class that holds it.

    `edges`: shape (w + 1,), non-decreasing; window k is [edges[k], edges[k + 1]).
    `classes`: by precedence, highest first. Returns shape (w, len(classes)); what no class
    holds is the window's length minus the row's sum.
    """
    windows = len(edges) - 1
    result = np.zeros((max(windows, 0), len(classes)), dtype=np.int64)
    if windows <= 0:
        return result
    merged = [union(intervals) for intervals in classes]
    times = [edges]
    for intervals in merged:
        times += [intervals.start, intervals.end]
    points = _distinct(np.concatenate(times))
    low, high = np.searchsorted(points, edges[0]), np.searchsorted(points, edges[-1], side="right")
    points = points[low:high]
    for first in range(0, len(points) - 1, POINTS_AT_ONCE):
        _share_out(points[first : first + POINTS_AT_ONCE + 1], edges, merged, result)
    return result


def _share_out(
    points: Times, edges: Times, classes: Sequence[Intervals], result: NDArray[np.int64]
) -> None:
    """Add to `result` the time between neighbouring points, between which nothing changes."""
    left = points[:-1]
    length = np.diff(points)
    window = np.searchsorted(edges, left, side="right") - 1
    taken = np.zeros(len(left), dtype=bool)
    for column, intervals in enumerate(classes):
        inside = _covers(intervals, left) & ~taken
        taken |= inside
        np.add.at(result[:, column], window[inside], length[inside])


def running_totals(classes: Sequence[Intervals], moments: Times) -> NDArray[np.int64]:
    """Time of every class before each moment, counted from the earliest of the moments.

    `classes`: by precedence, as in `divide`. `moments`: any shape, any order. Returns shape
    (*moments.shape, len(classes)); differences say what lies between two moments.
    """
    edges, place = np.unique(moments, return_inverse=True)
    totals = np.zeros((max(len(edges), 1), len(classes)), dtype=np.int64)
    np.cumsum(divide(edges, classes), axis=0, out=totals[1:])
    return totals[place.reshape(moments.shape)]


def _distinct(times: Times) -> Times:
    """The different times, ascending, sorted in place: `np.unique` hashes integers since numpy
    2.3, which takes twenty times as long where millions of them differ."""
    times.sort()
    first = np.ones(len(times), dtype=bool)
    first[1:] = times[1:] != times[:-1]
    return times if first.all() else times[first]


def _covers(disjoint: Intervals, points: Times) -> NDArray[np.bool_]:
    """Whether each point lies in the (ordered, disjoint) intervals."""
    if len(disjoint.start) == 0:
        return np.zeros(len(points), dtype=bool)
    index = np.searchsorted(disjoint.start, points, side="right") - 1
    covered: NDArray[np.bool_] = (index >= 0) & (points < disjoint.end[np.maximum(index, 0)])
    return covered


def tile(starts: Times, ends: Times) -> Times:
    """Edges of windows that tile a timeline: each lasts until the next starts, the last to its end.

    `starts` must be non-decreasing. Returns shape (n + 1,).
    """
    if len(starts) == 0:
        return np.empty(0, dtype=np.int64)
    last = max(int(ends.max()), int(starts[-1]))
    return np.append(starts, last)
