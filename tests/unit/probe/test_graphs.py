"""Marks of CUDA graphs, with a clock of numbers in place of the GPU's: what is written and when."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from harness_probe.graphs import GAUGE_STAMPS, MAX_UNREAD, GraphMarks, StampClock, middle_gap

GAP = 900
"""Nanoseconds from one kernel to the next, stamp to stamp."""


class Event:
    def __init__(self):
        self.over = True

    def query(self):
        return self.over


class Memory(list):
    """A list that a tensor's few operations are asked of."""

    def __getitem__(self, place):
        found = super().__getitem__(place)
        return View(self, place) if isinstance(place, slice) else found

    def data_ptr(self):
        return 0


class View:
    def __init__(self, owner, place):
        self.owner, self.place = owner, place

    def copy_(self, other, non_blocking):
        self.owner[self.place] = list.__getitem__(other.owner, other.place)

    def tolist(self):
        return list.__getitem__(self.owner, self.place)


class Timeline:
    """What `StampClock` and `GraphMarks` ask of a device timeline."""

    def __init__(self):
        self.base, self.capturing, self.stamp_origin_ns = object(), None, 1_000_000
        self.events, self.written, self.slots = [], [], None

    def memory(self, items, pinned):
        memory = Memory([0] * items)
        self.slots = self.slots or memory
        return memory

    def stream(self):
        return 0

    def mark(self):
        self.events.append(Event())
        return self.events[-1]

    def release(self, event):
        pass

    def write(self, item, start, end):
        self.written.append((item.head, item.unit, start, end, item.ordinal))


@pytest.fixture
def timeline():
    return Timeline()


@pytest.fixture
def marks(timeline):
    """A graph with two calls, captured."""
    lines = []
    rec = SimpleNamespace(
        unit_id=0,
        paused=False,
        meta=SimpleNamespace(write=lambda what, **fields: lines.append((what, fields))),
        heads={},
        descriptor=lambda kind, key, **fields: fields["name"],
        ordinals={},
        lines=lines,
    )
    kernel = SimpleNamespace(launch=lambda stream, address: None)
    marks = GraphMarks(timeline, rec, 1, StampClock(timeline, kernel))
    with marks.capture():
        marks.around("all_reduce", 1, -1, 64, "bfloat16", lambda: None)
        marks.around("all_reduce", 1, -1, 64, "bfloat16", lambda: None)
    return marks


@pytest.fixture(autouse=True)
def count_ordinals(monkeypatch):
    """Ordinals by the order of reading, without a recorder."""
    counts = {}

    def ordinal(rec, op, group, peer):
        counts[op] = counts.get(op, -1) + 1
        return counts[op]

    monkeypatch.setattr("harness_probe.graphs.next_ordinal", ordinal)


def replay(marks, timeline, unit, durations, at):
    """One replay whose calls last so long; the first stamp falls at `at` on the device's axis."""
    stamps = [at + timeline.stamp_origin_ns]
    stamps += [stamps[0] + GAP * k for k in range(1, GAUGE_STAMPS)]
    for duration in durations:
        before = stamps[-1] + 5_000
        # Two hand-overs lie around a call: stamp to kernel, and kernel to stamp.
        stamps += [before, before + duration + 2 * GAP]
    stamps.append(stamps[-1] + 1_000)
    marks.rec.unit_id = unit
    with marks.replay():
        list.__setitem__(timeline.slots, slice(0, len(stamps)), stamps)


def test_a_call_is_as_long_as_it_was_or_one_gap_longer(marks, timeline):
    replay(marks, timeline, 7, [6_000, 30_000], at=50_000)
    marks.read()
    (whole, *calls) = timeline.written
    assert whole[:3] == ("graph", 7, 50_000 + GAP * (GAUGE_STAMPS - 1))
    assert [end - start for _, _, start, end, _ in calls] == [6_000 + GAP, 30_000 + GAP]
    assert [ordinal for *_, ordinal in calls] == [0, 1]
    assert ("graph_clock", {"id": 1, "clock": "stamps", "gap_ns": GAP}) in marks.rec.lines


def test_replays_that_run_ahead_keep_their_own_times(marks, timeline):
    for unit in range(3):
        replay(marks, timeline, unit, [1_000 * (unit + 1)] * 2, at=10**6 * unit)
        timeline.events[-1].over = False
    marks.read()
    assert timeline.written == []
    for event in timeline.events:
        event.over = True
    marks.read()
    lengths = {
        (unit, end - start) for head, unit, start, end, _ in timeline.written if head != "graph"
    }
    assert lengths == {(0, 1_000 + GAP), (1, 2_000 + GAP), (2, 3_000 + GAP)}
    assert marks.close() == 0


def test_what_is_never_over_is_counted(marks, timeline):
    for unit in range(MAX_UNREAD + 2):
        replay(marks, timeline, unit, [1_000, 1_000], at=10**6 * unit)
        timeline.events[-1].over = False
    assert timeline.written == []
    assert marks.close() == 3 * (MAX_UNREAD + 2)  # the whole and two calls, each replay


def test_a_quiet_replay_writes_nothing_and_loses_nothing(marks, timeline):
    replay(marks, timeline, 1, [1_000, 1_000], at=0)
    marks.rec.paused = True
    with marks.replay():
        list.__setitem__(timeline.slots, slice(0, 20), [0] * 20)
    assert [unit for _, unit, *_ in timeline.written] == [1, 1, 1]
    assert marks.close() == 0


def test_the_gap_is_a_median():
    assert middle_gap([0, 10, 20, 900, 910]) == 10
    assert middle_gap([5]) == 0
