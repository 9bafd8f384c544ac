"""Times on the GPU: pairs of CUDA events, kept as integers, never at the price of a wait.

The device has a clock of its own. Every interval is measured from the latest base event, bases
are chained (`elapsed_time` is a float32 of milliseconds: 4 us coarse after a minute, 6 ns within
100 ms), and round trips between host and device say later how the two clocks relate.

Events are resolved when the caller has synchronised anyway (`resolve`). Eager event pairs enclose
the host's launch: with each goes the host's own call, so that ingest can bound what it cannot know.
What happens inside CUDA graphs is told by harness_probe.graphs.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness_probe.live import slot_of
from harness_probe.recorder import KIND_COLLECTIVE, KIND_DEVICE, KIND_P2P, Recorder
from harness_probe.spans import next_ordinal, write
from harness_probe.stamps import StampError, StampKernel

if TYPE_CHECKING:
    from harness_probe.graphs import GraphMarks

PAIR_TRIES = 8
LEAD_CYCLES = 1_000_000
"""The GPU idles so long (0.5 ms): what is launched meanwhile runs without gaps."""
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


@dataclass(slots=True)  # one a call: made in a third of the time of one with a dictionary
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
        self._torch = torch
        self._cuda = torch.cuda
        self._device = device
        self._free: list[Any] = []
        self._streams: dict[Any, Any] = {}
        # torch.cuda.current_stream resolves its argument anew each time: 4 of a record's 6 us.
        self._raw_stream = getattr(torch._C, "_cuda_getCurrentStream", None)
        self._raw_device = getattr(torch._C, "_cuda_getDevice", None)
        self._pending: deque[Interval | Base] = deque()
        self._marks: list[GraphMarks] = []
        self.capturing: GraphMarks | None = None
        self.dropped = 0
        self.stamp_origin_ns = 0
        """What the stamps' clock shows at the first base."""
        self.stamps = self._load_stamps()
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
        event.record(self._current_stream())
        return event

    def _current_stream(self) -> Any:
        if self._raw_stream is None or self._raw_device is None:
            return self._cuda.current_stream()
        key = self._raw_stream(self._raw_device())
        stream = self._streams.get(key)
        if stream is None:
            stream = self._streams[key] = self._cuda.current_stream()
        return stream

    def is_capturing(self) -> bool:
        """Whether the current stream is being captured into a graph."""
        return bool(self._cuda.is_current_stream_capturing())

    def release(self, event: Any) -> None:
        """An event that nobody looks at any more."""
        self._free.append(event)

    def stream(self) -> int:
        """Handle of the current stream."""
        return int(self._cuda.current_stream().cuda_stream)

    def memory(self, items: int, pinned: bool) -> Any:
        """Integers of 64 bits on the device, or on the host where it can copy to them."""
        torch = self._torch
        if pinned:
            return torch.zeros(items, dtype=torch.int64, pin_memory=True)
        return torch.zeros(items, dtype=torch.int64, device="cuda")

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
        if self.stamps is not None:
            self._pair_stamps(self.stamps)

    def _load_stamps(self) -> StampKernel | None:
        try:
            kernel = StampKernel()
            # What has not run yet, the driver may still have to compile: not within a capture.
            kernel.launch(self.stream(), int(self.memory(1, pinned=False).data_ptr()))
            self._cuda.synchronize()
        except StampError as error:
            self._rec.meta.write("stamps", ok=False, reason=str(error))
            return None
        return kernel

    def _pair_stamps(self, kernel: StampKernel) -> None:
        """Where the stamps' clock and that of events stand: a stamp between two events."""
        slots = self.memory(PAIR_TRIES, pinned=False)
        brackets = []
        self._cuda._sleep(LEAD_CYCLES)
        for number in range(PAIR_TRIES):
            before = self.mark()
            kernel.launch(self.stream(), int(slots.data_ptr()) + 8 * number)
            brackets.append((before, self.mark()))
        stamps = slots.tolist()
        found = []
        for (before, after), stamp in zip(brackets, stamps, strict=True):
            low, high = self.base.at(before), self.base.at(after)
            found.append((high - low, stamp - (low + high) // 2))
            self._free += [before, after]
        width, self.stamp_origin_ns = min(found)
        self._rec.meta.write("stamps", ok=True, origin_ns=self.stamp_origin_ns, width_ns=width)

    def close(self) -> None:
        """Resolve what has happened and count what has not."""
        with contextlib.suppress(Exception):  # a broken CUDA context must not hide its cause
            self._cuda.synchronize()
            self.resolve()
            self.pair_clocks()
        lost = self.dropped + sum(isinstance(item, Interval) for item in self._pending)
        lost += sum(marks.close() for marks in self._marks)
        self._pending.clear()
        self._rec.meta.write("device_end", lost=lost)

    def graph_marks(self, instrumented: bool) -> GraphMarks:
        """Marks for one graph that is going to be captured."""
        from harness_probe.graphs import EventClock, GraphClock, GraphMarks, StampClock

        clock: GraphClock | None = None
        if instrumented:
            stamps = self.stamps
            clock = EventClock(self._cuda) if stamps is None else StampClock(self, stamps)
        marks = GraphMarks(self, self._rec, len(self._marks) + 1, clock)
        self._marks.append(marks)
        return marks


def device_head(rec: Recorder, op: str, dtype: str, source: str, posted: bool = False) -> int:
    """Head word of a communication on the device timeline.

    `posted`: the interval is what the stream waited for it; its kernel ran beside the stream.
    """
    key = ("device", op, dtype, source, posted)
    found = rec.heads.get(key)
    if found is not None:
        return found
    kind = KIND_P2P if op in ("send", "recv") else KIND_COLLECTIVE
    return rec.descriptor(
        kind,
        key,
        name=op,
        category="comm",
        op=op,
        dtype=dtype,
        timeline="device",
        source=source,
        **({"posted": True} if posted else {}),
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
    rec.live.group(slot_of(op, group, peer), ordinal, ordinal - 1)
    head = device_head(rec, op, dtype, "app_timers", posted is not None)
    start = timeline.mark()
    begin = _now()
    if ordinal:
        rec.live.touch(begin)
    else:  # NCCL makes its communicator in the first call: there the host itself may stand
        place = (head & 0xFFFFFFFF, group_peer, ordinal, begin, num_bytes)
        rec.live.update(begin, rec.unit_id, *place, rec.entered)
    result = call()
    returned = _now()
    if not ordinal:
        rec.live.update(returned, rec.unit_id, entered=rec.entered)
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
