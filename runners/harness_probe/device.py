"""Times on the GPU: pairs of CUDA events, kept as integers, never at the price of a wait.

The device has a clock of its own. Every interval is measured from the latest base event, bases
are chained (`elapsed_time` is a float32 of milliseconds: 4 us coarse after a minute, 6 ns within
100 ms), and round trips between host and device say later how the two clocks relate.

Events are resolved when the caller has synchronised anyway (`resolve`). Eager event pairs enclose
the host's launch: with each goes the host's own call, so that ingest can bound what it cannot know.
Calls and spans are queued by harness_probe.device_calls; what happens inside CUDA graphs is told
by harness_probe.graphs.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from harness_probe.recorder import KIND_DEVICE, Recorder
from harness_probe.spans import write
from harness_probe.stamps import StampError, StampKernel

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


class CapturedCalls(Protocol):
    """The communication calls of one CUDA graph (harness_probe.graphs)."""

    def around(
        self, op: str, group: int, peer: int, num_bytes: int, dtype: str, call: Callable[[], Any]
    ) -> Any:
        """Capture one call."""

    def read(self) -> None:
        """Write the records of the replays that are over."""

    def close(self) -> int:
        """How many records never came."""


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
        self.graphs: list[CapturedCalls] = []
        self.capturing: CapturedCalls | None = None
        """The graph that is being captured."""
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

    def external_event(self) -> Any:
        """A timing event for a graph under capture: every replay records it anew."""
        return self._cuda.Event(enable_timing=True, external=True)

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
        for graph in self.graphs:
            graph.read()
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
        lost += sum(graph.close() for graph in self.graphs)
        self._pending.clear()
        self._rec.meta.write("device_end", lost=lost)
