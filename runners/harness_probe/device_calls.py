"""What is timed on the device: communication calls and named spans, by pairs of events."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from harness_probe.device import Interval
from harness_probe.live import slot_of
from harness_probe.recorder import KIND_COLLECTIVE, KIND_P2P
from harness_probe.spans import next_ordinal

if TYPE_CHECKING:
    from harness_probe.device import DeviceTimeline
    from harness_probe.recorder import Recorder

_now = time.monotonic_ns


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
