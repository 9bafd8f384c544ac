"""Times on the GPU: pairs of CUDA events, kept as integers, never at the price of a wait.

The device has a clock of its own. Every interval is measured from the latest base event, bases
are chained (`elapsed_time` is a float32 of milliseconds: 4 us coarse after a minute, 6 ns within
100 ms), and round trips between host and device say later how the two clocks relate.

Events are resolved when the caller has synchronised anyway (`resolve`). Eager event pairs enclose
the host's launch: with each goes the host's own call, so that ingest can bound what it cannot know.
Inside a CUDA graph external events give every replay's times (`GraphMarks`).
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from harness_probe.recorder import KIND_COLLECTIVE, KIND_DEVICE, KIND_P2P, Recorder
from harness_probe.spans import next_ordinal, write

PAIR_TRIES = 8
MAX_PENDING = 200_000
"""Intervals kept unresolved at most; further ones are dropped and counted."""

_now = time.monotonic_ns


@dataclass
class Base:
    """An event whose device time is known once it and its predecessors have happened."""

    event: Any
    previous: Base | None
    ns: int | None = None

    def resolve(self) -> int:
        """Device nanoseconds since the first base."""
        if self.ns is None:
            assert self.previous is not None
            elapsed = float(self.previous.event.elapsed_time(self.event))
            self.ns = self.previous.resolve() + round(elapsed * 1e6)
            self.previous = None
        return self.ns

    def at(self, event: Any) -> int:
        """Device nanoseconds of an event near this base."""
        return self.resolve() + round(float(self.event.elapsed_time(event)) * 1e6)


@dataclass
class Interval:
    """A pair of events to be resolved, and the words of its record."""

    base: Base
    start: Any
    end: Any
    head: int
    unit: int
    host_begin: int
    host_return: int
    num_bytes: int = -1
    group_peer: int = 0
    ordinal: int = -1


class DeviceTimeline:
    """The device timeline of one rank. Use from the recording thread."""

    def __init__(self, rec: Recorder, torch: Any, device: Any) -> None:
        self._rec = rec
        self._cuda = torch.cuda
        self._free: list[Any] = []
        self._pending: deque[Interval | Base] = deque()
        self._marks: list[GraphMarks] = []
        self.capturing: GraphMarks | None = None
        self.dropped = 0
        first = self.event()
        first.record()
        first.synchronize()
        self.base = Base(first, None, 0)
        index = self._cuda.current_device()
        uuid = getattr(torch.cuda.get_device_properties(index), "uuid", index)
        rec.meta.write("device", index=index, uuid=str(uuid))
        self.pair_clocks()

    # -- events ----------------------------------------------------------------------------

    def event(self) -> Any:
        """A timing event, reused where possible."""
        return self._free.pop() if self._free else self._cuda.Event(enable_timing=True)

    def mark(self) -> Any:
        """An event recorded now on the current stream."""
        event = self.event()
        event.record()
        return event

    def is_capturing(self) -> bool:
        """Whether the current stream is being captured into a graph."""
        return bool(self._cuda.is_current_stream_capturing())

    # -- intervals -------------------------------------------------------------------------

    def open_unit(self, phase: str) -> Interval:
        """Measure from here on; the interval is completed by `close_unit`."""
        self.base = Base(self.mark(), self.base)
        self._pending.append(self.base)
        head = self._rec.descriptor(
            KIND_DEVICE,
            ("unit", phase, "device"),
            name=phase,
            category="unit",
            timeline="device",
            source="app_timers",
        )
        event = self.base.event
        return Interval(self.base, event, None, head, self._rec.unit_id, _now(), 0)

    def close_unit(self, unit: Interval) -> None:
        """The unit's work has been launched."""
        unit.end = self.mark()
        unit.host_return = _now()
        self.add(unit)

    def add(self, interval: Interval) -> None:
        """Queue an interval for `resolve`."""
        if len(self._pending) >= MAX_PENDING:
            self.dropped += 1
            return
        self._pending.append(interval)

    def resolve(self) -> None:
        """Write the records of everything that has happened; waits for nothing."""
        for marks in self._marks:
            marks.read()
        while self._pending:
            item = self._pending[0]
            if isinstance(item, Base):
                if not item.event.query():
                    return
                item.resolve()
            else:
                if not item.end.query():
                    return
                self._write(item)
                if item.start is not item.base.event:
                    self._free.append(item.start)
                self._free.append(item.end)
            self._pending.popleft()

    def _write(self, item: Interval) -> None:
        start, end = item.base.at(item.start), item.base.at(item.end)
        self.write(item, start, max(start, end))

    def write(self, item: Interval, start_ns: int, end_ns: int) -> None:
        """Write one record; the words for CPU time hold the host's call instead."""
        rec = self._rec
        rec.next_id += 1
        write(
            rec,
            item.head,
            rec.next_id,
            0,
            item.unit,
            start_ns,
            end_ns,
            item.host_begin,
            item.host_return,
            item.num_bytes,
            item.group_peer,
            item.ordinal,
            0,
        )

    # -- clocks ----------------------------------------------------------------------------

    def pair_clocks(self) -> None:
        """Round trips host - device - host; call it when the device is idle (it synchronises)."""
        self._cuda.synchronize()
        base = Base(self.mark(), self.base)
        base.event.synchronize()
        self.base = base
        for _ in range(PAIR_TRIES):
            event = self.event()
            sent = _now()
            event.record()
            event.synchronize()
            received = _now()
            at = base.at(event)
            self._free.append(event)
            self._rec.meta.write(
                "clock", peer=self._rec.rank, to="device", t0=sent, t1=at, t2=at, t3=received
            )

    def close(self) -> None:
        """Resolve what has happened and count what has not."""
        with contextlib.suppress(Exception):  # a broken CUDA context must not hide its cause
            self._cuda.synchronize()
            self.resolve()
            self.pair_clocks()
        lost = self.dropped + sum(isinstance(item, Interval) for item in self._pending)
        lost += sum(marks.lost for marks in self._marks)
        self._pending.clear()
        self._rec.meta.write("device_end", lost=lost)

    def graph_marks(self, instrumented: bool) -> GraphMarks:
        """Marks for one graph that is going to be captured."""
        marks = GraphMarks(self, self._rec, self._cuda, len(self._marks) + 1, instrumented)
        self._marks.append(marks)
        return marks


@dataclass
class _Mark:
    head: int
    start: Any
    end: Any
    num_bytes: int = -1
    op: str = ""
    group: int = 0
    peer: int = -1


@dataclass
class GraphMarks:
    """What a CUDA graph holds, and when its parts ran.

    `with marks.capture(): ...` inside the capture, `with marks.replay(): graph.replay()` later.
    A clean graph remembers its communication calls and takes one event pair a replay around the
    launch. An instrumented one has external events around every call inside the graph; they hold
    the latest replay only, so they are read when the next one begins or at `resolve`, and a
    replay that is not over by then is counted as lost.
    """

    timeline: DeviceTimeline
    rec: Recorder
    cuda: Any
    graph_id: int
    instrumented: bool
    marks: list[_Mark] = field(default_factory=list)
    calls: list[tuple[str, int, int, int, str]] = field(default_factory=list)
    lost: int = 0
    _replayed: tuple[Base, int, int, int] | None = None

    @contextlib.contextmanager
    def capture(self) -> Iterator[None]:
        """Everything captured inside is the graph's; communication in it is noted."""
        self.timeline.capturing = self
        whole = self._mark(self._head("graph_events"))
        try:
            yield
        finally:
            self.timeline.capturing = None
            if whole is not None:
                whole.end.record()
                self.marks.insert(0, whole)
            self.rec.meta.write(
                "graph", id=self.graph_id, instrumented=self.instrumented, calls=self.calls
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

    def _mark(self, head: int, *what: Any) -> _Mark | None:
        if not self.instrumented:
            return None
        events = [self.cuda.Event(enable_timing=True, external=True) for _ in range(2)]
        mark = _Mark(head, *events, *what)
        mark.start.record()
        return mark

    def around(
        self, op: str, group: int, peer: int, num_bytes: int, dtype: str, call: Callable[[], Any]
    ) -> Any:
        """Capture a communication call, between two external events if instrumented."""
        self.calls.append((op, group, peer, num_bytes, dtype))
        head = device_head(self.rec, op, dtype, "graph_events")
        mark = self._mark(head, num_bytes, op, group, peer)
        result = call()
        if mark is not None:
            mark.end.record()
            self.marks.append(mark)
        return result

    @contextlib.contextmanager
    def replay(self) -> Iterator[None]:
        """Around one replay of the graph. While the recorder is quiet only what an earlier
        replay left is read."""
        if self.rec.paused:
            self._settle()
            yield
            return
        if not self.instrumented:
            with DeviceSpan(self.rec, self.timeline, self._head("app_timers")):
                yield
            return
        self._settle()
        base, unit = self.timeline.base, self.rec.unit_id
        begin = _now()
        yield
        self._replayed = (base, unit, begin, _now())

    def _settle(self) -> None:
        """Read the latest replay, whose events are about to be overwritten, or count it as lost."""
        self.read()
        if self._replayed is not None:
            self.lost += len(self.marks)
            self._replayed = None

    def read(self) -> None:
        """Write the records of the latest replay if it is over."""
        if self._replayed is None or not self.marks or not self.marks[0].end.query():
            return
        base, unit, begin, returned = self._replayed
        self._replayed = None
        for mark in self.marks:
            ordinal = next_ordinal(self.rec, mark.op, mark.group, mark.peer) if mark.op else -1
            words = (mark.num_bytes, mark.group << 32 | (mark.peer + 1), ordinal)
            item = Interval(base, None, None, mark.head, unit, begin, returned, *words)
            start, end = base.at(mark.start), base.at(mark.end)
            self.timeline.write(item, start, max(start, end))


def device_head(rec: Recorder, op: str, dtype: str, source: str) -> int:
    """Head word of a communication on the device timeline."""
    kind = KIND_P2P if op in ("send", "recv") else KIND_COLLECTIVE
    return rec.descriptor(
        kind,
        (op, dtype, kind, source),
        name=op,
        category="comm",
        op=op,
        dtype=dtype,
        timeline="device",
        source=source,
    )


def record_call(
    rec: Recorder,
    timeline: DeviceTimeline,
    op: str,
    group: int,
    peer: int,
    num_bytes: int,
    dtype: str,
    call: Callable[[], Any],
    posted: tuple[int, int, int] | None = None,
) -> Any:
    """A communication call on device tensors: an event pair, or marks inside a capture.

    `posted`: ordinal, host time and unit of a call made earlier, of which this is the wait.
    """
    if timeline.is_capturing():
        marks = timeline.capturing
        if marks is None:
            return call()
        return marks.around(op, group, peer, num_bytes, dtype, call)
    group_peer = group << 32 | (peer + 1)
    unit = rec.unit_id
    if posted is None:
        ordinal = next_ordinal(rec, op, group, peer)
    else:
        ordinal, _, unit = posted
    # Launched is entered; whether it has been left only the device knows.
    rec.entered += 1
    rec.live.group(group_peer, ordinal, ordinal - 1)
    start = timeline.mark()
    begin = _now()
    result = call()
    returned = _now()
    head = device_head(rec, op, dtype, "app_timers")
    begin = begin if posted is None else posted[1]
    end = timeline.mark()
    timeline.add(
        Interval(
            timeline.base, start, end, head, unit, begin, returned, num_bytes, group_peer, ordinal
        )
    )
    return result


class DeviceSpan:
    """A named interval on the device, by an event pair."""

    __slots__ = ("_begin", "_head", "_rec", "_start", "_timeline")

    def __init__(self, rec: Recorder, timeline: DeviceTimeline, head: int) -> None:
        self._rec = rec
        self._timeline = timeline
        self._head = head

    def __enter__(self) -> None:
        self._start = self._timeline.mark()
        self._begin = _now()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        timeline = self._timeline
        returned = _now()
        end = timeline.mark()
        unit = self._rec.unit_id
        timeline.add(
            Interval(timeline.base, self._start, end, self._head, unit, self._begin, returned)
        )
