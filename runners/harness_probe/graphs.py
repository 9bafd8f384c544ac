"""What CUDA graphs hold, and when the parts of an instrumented one ran.

A clean graph remembers its communication calls and takes one event pair a replay around the
launch. An instrumented one reads a clock before and after every call inside the graph: by stamps
(a kernel that writes the GPU's clock, harness_probe.stamps) where the driver takes them, else by
external events, which are coarser and hold the latest replay only.

Between two stamps with nothing between them lies one hand-over from kernel to kernel, `gap_ns`.
Around a call there are two. One is taken off, so what is written is the call's duration or up to
one gap more; ingest keeps the lower bound beside it.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from harness_probe.device import Base, DeviceTimeline, Interval
from harness_probe.device_calls import DeviceSpan, device_head
from harness_probe.recorder import KIND_DEVICE
from harness_probe.spans import next_ordinal
from harness_probe.stamps import ITEM_BYTES, StampKernel

if TYPE_CHECKING:
    from harness_probe.recorder import Recorder

SOURCE: Final = "graph_events"
GAUGE_STAMPS: Final = 6
"""Stamps one after the other at the head of a graph; they tell the gap between kernels."""
SLOTS: Final = 8192
"""Stamps in one graph at most; a step of 160 layers with two calls each needs 646."""
MAX_UNREAD: Final = 64
"""Replays kept until they are over; further ones are counted as lost."""

_now = time.monotonic_ns

Times = Callable[[int], int]
"""Device nanoseconds of a reading of the clock, by its number."""


class GraphClock(Protocol):
    """Reads the device's clock inside one graph."""

    kind: str
    keeps: int
    """Replays that may wait for their times to be read."""
    gap_ns: int | None
    """Time from stamp to stamp with nothing between; None: not known."""

    def mark(self) -> int:
        """Put one more reading into the graph being captured; returns its number."""

    def replayed(self) -> Any:
        """A replay has been launched: something to read its times from."""

    def times(self, reading: Any, base: Base) -> Times | None:
        """The times of that replay if it is over."""


class EventClock:
    """External events: the times of the latest replay, coarser next to NCCL's kernels."""

    kind = "events"
    gap_ns: int | None = None
    keeps = 1

    def __init__(self, timeline: DeviceTimeline) -> None:
        self._timeline = timeline
        self._events: list[Any] = []

    def mark(self) -> int:
        event = self._timeline.external_event()
        event.record()
        self._events.append(event)
        return len(self._events) - 1

    def replayed(self) -> None:
        return None

    def times(self, reading: Any, base: Base) -> Times | None:
        # The whole graph's interval is closed last, so this is the graph's last event.
        if not self._events[-1].query():
            return None
        return lambda number: base.at(self._events[number])


class StampClock:
    """Stamps into memory of the device, copied to the host behind every replay."""

    kind = "stamps"
    keeps = MAX_UNREAD

    def __init__(self, timeline: DeviceTimeline, kernel: StampKernel) -> None:
        self._timeline = timeline
        self._kernel = kernel
        self._slots = timeline.memory(SLOTS, pinned=False)
        self._free: list[Any] = []
        self._count = 0
        self.gap_ns: int | None = None

    def mark(self) -> int:
        number = self._count
        if number >= SLOTS:
            raise RuntimeError(f"a graph holds more than {SLOTS} time stamps")
        address = int(self._slots.data_ptr()) + ITEM_BYTES * number
        self._kernel.launch(self._timeline.stream(), address)
        self._count += 1
        return number

    def replayed(self) -> tuple[Any, Any]:
        host = self._free.pop() if self._free else self._timeline.memory(SLOTS, pinned=True)
        # In the order of the stream: what the replay wrote, before the next one writes.
        host[: self._count].copy_(self._slots[: self._count], non_blocking=True)
        return host, self._timeline.mark()

    def times(self, reading: Any, base: Base) -> Times | None:
        host, end = reading
        if not end.query():
            return None
        stamps: list[int] = host[: self._count].tolist()
        self._free.append(host)
        self._timeline.release(end)
        self.gap_ns = middle_gap(stamps[:GAUGE_STAMPS])
        origin = self._timeline.stamp_origin_ns
        return lambda number: stamps[number] - origin


def middle_gap(stamps: Sequence[int]) -> int:
    """Median of the gaps between stamps that follow each other with nothing between."""
    gaps = sorted(late - early for early, late in itertools.pairwise(stamps))
    return gaps[len(gaps) // 2] if gaps else 0


@dataclass
class _Mark:
    head: int
    start: int
    end: int
    num_bytes: int = -1
    op: str = ""
    group: int = 0
    peer: int = -1


@dataclass
class _Replay:
    base: Base
    unit: int
    begin: int
    returned: int
    reading: Any


@dataclass
class GraphMarks:
    """The marks of one graph. `clock` None: a clean graph.

    `with marks.capture(): ...` inside the capture, `with marks.replay(): graph.replay()` later.
    """

    timeline: DeviceTimeline
    rec: Recorder
    graph_id: int
    clock: GraphClock | None
    marks: list[_Mark] = field(default_factory=list)
    calls: list[tuple[str, int, int, int, str]] = field(default_factory=list)
    lost: int = 0
    _unread: deque[_Replay] = field(default_factory=deque)
    _told: bool = False

    @contextlib.contextmanager
    def capture(self) -> Iterator[None]:
        """Everything captured inside is the graph's; communication in it is noted."""
        self.timeline.capturing = self
        clock = self.clock
        start = 0
        if clock is not None:
            for _ in range(GAUGE_STAMPS if clock.kind == StampClock.kind else 1):
                start = clock.mark()
        try:
            yield
        finally:
            self.timeline.capturing = None
            if clock is not None:
                self.marks.insert(0, _Mark(self._head(SOURCE), start, clock.mark()))
            self.rec.meta.write(
                "graph",
                id=self.graph_id,
                instrumented=clock is not None,
                clock=clock.kind if clock is not None else None,
                calls=self.calls,
            )

    def _head(self, source: str) -> int:
        return self.rec.descriptor(
            KIND_DEVICE,
            ("graph", self.graph_id, source),
            name="graph",
            category="graph",
            timeline="device",
            source=source,
            graph=self.graph_id,
        )

    def around(
        self, op: str, group: int, peer: int, num_bytes: int, dtype: str, call: Callable[[], Any]
    ) -> Any:
        """Capture a communication call, between two readings of the clock if instrumented."""
        self.calls.append((op, group, peer, num_bytes, dtype))
        clock = self.clock
        if clock is None:
            return call()
        start = clock.mark()
        result = call()
        head = device_head(self.rec, op, dtype, SOURCE)
        self.marks.append(_Mark(head, start, clock.mark(), num_bytes, op, group, peer))
        return result

    @contextlib.contextmanager
    def replay(self) -> Iterator[None]:
        """Around one replay of the graph. While the recorder is quiet only what earlier replays
        left is read."""
        if self.clock is None:
            with self._launch_span():
                yield
            return
        self.read()
        if self.rec.paused:
            # The replay overwrites what has not been copied.
            self._lose(down_to=0 if self.clock.kind == EventClock.kind else MAX_UNREAD)
            yield
            return
        self._lose(down_to=self.clock.keeps - 1)
        base, unit = self.timeline.base, self.rec.unit_id
        begin = _now()
        yield
        returned = _now()
        self._unread.append(_Replay(base, unit, begin, returned, self.clock.replayed()))

    def _launch_span(self) -> contextlib.AbstractContextManager[None]:
        if self.rec.paused:
            return contextlib.nullcontext()
        return DeviceSpan(self.rec, self.timeline, self._head("app_timers"))

    def _lose(self, down_to: int) -> None:
        while len(self._unread) > down_to:
            self._unread.popleft()
            self.lost += len(self.marks)

    def read(self) -> None:
        """Write the records of the replays that are over."""
        while self._unread and self.clock is not None:
            replay = self._unread[0]
            times = self.clock.times(replay.reading, replay.base)
            if times is None:
                return
            self._unread.popleft()
            self._tell()
            for mark in self.marks:
                self._write(mark, replay, times)

    def _tell(self) -> None:
        if self._told or self.clock is None:
            return
        self._told = True
        self.rec.meta.write(
            "graph_clock", id=self.graph_id, clock=self.clock.kind, gap_ns=self.clock.gap_ns
        )

    def _write(self, mark: _Mark, replay: _Replay, times: Times) -> None:
        ordinal = next_ordinal(self.rec, mark.op, mark.group, mark.peer) if mark.op else -1
        words = (mark.num_bytes, mark.group << 32 | (mark.peer + 1), ordinal)
        item = Interval(
            replay.base, None, None, mark.head, replay.unit, replay.begin, replay.returned, *words
        )
        start, end = times(mark.start), times(mark.end)
        gap = self.clock.gap_ns if self.clock is not None and mark.op else None
        if gap:
            # One hand-over, half at each side.
            start, end = start + gap // 2, end - (gap - gap // 2)
        self.timeline.write(item, start, max(start, end))

    def close(self) -> int:
        """Marks whose times never came."""
        lost = self.lost + len(self._unread) * len(self.marks)
        self._unread.clear()
        return lost


def graph_marks(rec: Recorder, timeline: DeviceTimeline, instrumented: bool) -> GraphMarks:
    """Marks for one graph that is going to be captured; the timeline reads what they leave."""
    clock: GraphClock | None = None
    if instrumented:
        stamps = timeline.stamps
        clock = EventClock(timeline) if stamps is None else StampClock(timeline, stamps)
    marks = GraphMarks(timeline, rec, len(timeline.graphs) + 1, clock)
    timeline.graphs.append(marks)
    return marks
