"""Interval algebra against a reference that looks at every instant."""

from __future__ import annotations

import itertools
from unittest.mock import patch

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from harness_analysis.build import sweep as sweep
from harness_analysis.build.sweep import Intervals, divide, tile, union

SPAN = 60
interval = st.tuples(st.integers(-5, SPAN), st.integers(-5, SPAN))
intervals = st.lists(interval, max_size=8)


def make(pairs: list[tuple[int, int]]) -> Intervals:
    start = np.array([pair[0] for pair in pairs], dtype=np.int64)
    end = np.array([pair[1] for pair in pairs], dtype=np.int64)
    return Intervals(start, end)


def covers(pairs: list[tuple[int, int]], instant: int) -> bool:
    return any(start <= instant < end for start, end in pairs)


@given(intervals)
def test_union_holds_the_same_instants_in_disjoint_order(pairs):
    merged = union(make(pairs))
    again = list(zip(merged.start.tolist(), merged.end.tolist(), strict=True))
    assert all(a[1] < b[0] for a, b in itertools.pairwise(again))
    for instant in range(-6, SPAN + 1):
        assert covers(again, instant) == covers(pairs, instant)


@given(
    st.lists(st.integers(0, SPAN), min_size=2, max_size=6),
    st.lists(intervals, max_size=4),
    st.integers(1, 9),
)
def test_every_instant_goes_to_the_first_class_that_holds_it(edges, classes, at_once):
    edges = sorted(edges)
    with patch.object(sweep, "POINTS_AT_ONCE", at_once):
        got = divide(np.array(edges, dtype=np.int64), [make(pairs) for pairs in classes])
    want = np.zeros((len(edges) - 1, len(classes)), dtype=np.int64)
    for window, (left, right) in enumerate(itertools.pairwise(edges)):
        for instant in range(left, right):
            for column, pairs in enumerate(classes):
                if covers(pairs, instant):
                    want[window, column] += 1
                    break
    assert got.tolist() == want.tolist()
    assert (got.sum(axis=1) <= np.diff(edges)).all()


def test_nothing_to_divide():
    nothing = np.empty(0, dtype=np.int64)
    assert divide(nothing, [Intervals.empty()]).shape == (0, 1)
    assert len(tile(nothing, nothing)) == 0
    one = divide(np.array([3, 9]), [])
    assert one.shape == (1, 0)


def test_windows_last_until_the_next_begins():
    edges = tile(np.array([10, 20, 35]), np.array([12, 40, 38]))
    assert edges.tolist() == [10, 20, 35, 40]
