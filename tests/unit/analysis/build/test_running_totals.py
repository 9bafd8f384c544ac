"""Running totals of overlapping intervals, against counting every instant; and in time."""

import time

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from harness_analysis.build.sweep import Intervals, running_totals

SPAN = st.tuples(st.integers(0, 30), st.integers(-2, 12))
CLASSES = st.lists(st.lists(SPAN, max_size=8), min_size=1, max_size=4)


def intervals(spans):
    start = np.array([at for at, _ in spans], dtype=np.int64)
    return Intervals(start, start + np.array([length for _, length in spans], dtype=np.int64))


@given(CLASSES, st.lists(st.tuples(st.integers(0, 45), st.integers(0, 45)), max_size=6))
def test_differences_are_what_counting_gives(classes, gaps):
    ends = np.array([sorted(gap) for gap in gaps], dtype=np.int64).reshape(-1, 2)
    totals = running_totals([intervals(spans) for spans in classes], ends)
    assert totals.shape == (len(gaps), 2, len(classes))
    for (left, right), got in zip(ends.tolist(), totals[:, 1] - totals[:, 0], strict=True):
        counted = [0] * len(classes)
        for instant in range(left, right):
            for place, spans in enumerate(classes):
                if any(at <= instant < at + length for at, length in spans):
                    counted[place] += 1
                    break
        assert got.tolist() == counted


def test_a_million_kernels_take_seconds():
    random = np.random.default_rng(0)
    start = np.cumsum(random.integers(1, 9_000, 1_000_000))
    kernels = Intervals(start, start + random.integers(1, 12_000, len(start)))
    ends = np.stack([start[:-50:50], start[49:-1:50]])
    began = time.perf_counter()
    totals = running_totals([kernels, Intervals.empty()], ends)
    assert time.perf_counter() - began < 10
    busy = totals[1, :, 0] - totals[0, :, 0]
    assert ((busy >= 0) & (busy <= ends[1] - ends[0])).all()
