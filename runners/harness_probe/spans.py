"""The context managers that write records. The hot path of the recorder: read it as such."""

from __future__ import annotations

from threading import get_ident
from time import monotonic_ns, thread_time_ns
from types import TracebackType
from typing import TYPE_CHECKING, Any

from harness_probe.live import slot_of
from harness_probe.recorder import KIND_COLLECTIVE, KIND_P2P, Recorder
from harness_probe.spool import CHUNK_BYTES, RECORD, RECORD_BYTES

_pack_into = RECORD.pack_into
_LAST = CHUNK_BYTES - RECORD_BYTES
FOREIGN_THREAD = 1 << 32
"""Set in the head of a record made by any thread but the one that called `start`."""


class Noop:
    """What every call returns while nothing is recorded.

    `__enter__` and `__exit__` are C functions that take what `with` passes them and return 0
    and None: entering and leaving costs half of what two Python methods would (59 against
    119 ns in one run; no cheaper pair was found).
    """

    __slots__ = ()
    if TYPE_CHECKING:

        def __enter__(self) -> int: ...
        def __exit__(self, *_: Any) -> None: ...
    else:
        __enter__ = (0).conjugate
        __exit__ = memoryview(b"").__exit__  # a released view may be released again


NOOP = Noop()


class NoopFile:
    """What `io` returns while nothing is recorded: its user calls `add` and `note` on it."""

    __slots__ = ()

    def __enter__(self) -> NoopFile:
        return self

    def __exit__(self, *_: Any) -> None:
        return None

    def add(self, num_bytes: int) -> None:
        """Count bytes."""

    def note(self, **fields: Any) -> None:
        """Attach attributes."""


NOOP_FILE = NoopFile()


def write(rec: Recorder, *words: int) -> None:
    """Append one record from the owner's thread, or a marked one from any other."""
    file = rec.file
    if get_ident() != rec.owner:
        file.add_foreign(RECORD.pack(words[0] | FOREIGN_THREAD, *words[1:]))
        return
    offset = file.offset
    _pack_into(file.chunk, offset, *words)
    file.offset = offset + RECORD_BYTES
    if offset >= _LAST:
        file.roll()


class Span:
    """A named host interval: wall time only."""

    __slots__ = ("_head", "_id", "_parent", "_rec", "_start")

    def __init__(self, rec: Recorder, head: int) -> None:
        self._rec = rec
        self._head = head

    def __enter__(self) -> None:
        rec = self._rec
        if get_ident() == rec.owner:
            self._parent = rec.parent
            rec.next_id = self._id = rec.parent = rec.next_id + 1
        else:
            self._parent = 0
            self._id = 0
        self._start = monotonic_ns()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        end = monotonic_ns()
        rec = self._rec
        if not self._id:
            write(rec, self._head, 0, 0, rec.unit_id, self._start, end, -1, -1, -1, 0, -1, 0)
            return
        rec.parent = parent = self._parent
        file = rec.file
        offset = file.offset
        _pack_into(
            file.chunk,
            offset,
            self._head,
            self._id,
            parent,
            rec.unit_id,
            self._start,
            end,
            -1,
            -1,
            -1,
            0,
            -1,
            0,
        )
        file.offset = offset + RECORD_BYTES
        if offset >= _LAST:
            file.roll()


class TimedSpan:
    """A span with the thread's CPU time at both ends. Base of units, communication and files."""

    __slots__ = ("_cpu", "_head", "_id", "_parent", "_rec", "_start")

    def __init__(self, rec: Recorder, head: int) -> None:
        self._rec = rec
        self._head = head
        self._id = 0

    def _enter(self) -> None:
        rec = self._rec
        self._parent = 0
        if get_ident() == rec.owner:
            self._parent = rec.parent
            rec.next_id = self._id = rec.parent = rec.next_id + 1
        self._cpu = thread_time_ns()
        self._start = monotonic_ns()

    def _leave(self, num_bytes: int, group_peer: int, ordinal: int, extra: int) -> None:
        end = monotonic_ns()
        cpu_end = thread_time_ns()
        rec = self._rec
        if self._id:
            rec.parent = self._parent
        write(
            rec,
            self._head,
            self._id,
            self._parent,
            rec.unit_id,
            self._start,
            end,
            self._cpu,
            cpu_end,
            num_bytes,
            group_peer,
            ordinal,
            extra,
        )


class Unit(TimedSpan):
    """One unit of work on this rank; every record made inside carries its key."""

    __slots__ = ("_device", "_outer", "_outer_page", "_page", "_phase", "_unit")

    def __init__(self, rec: Recorder, head: int, unit: int, page: bytes, phase: str) -> None:
        super().__init__(rec, head)
        self._unit = unit
        self._page = page
        self._phase = phase
        self._device: Any = None

    def __enter__(self) -> int:
        rec = self._rec
        self._outer, self._outer_page = rec.unit_id, rec.unit_page
        rec.unit_id, rec.unit_page = self._unit, self._page
        self._enter()
        rec.live.unit(self._page)
        rec.live.update(self._start, self._unit, entered=rec.entered)
        if rec.device is not None:
            self._device = rec.device.open_unit(self._phase)
        if self._phase == "prefill" and not rec.prefilled:
            rec.prefilled = True
            rec.live.prefill(self._start)
        return self._unit

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        rec = self._rec
        if self._device is not None:
            rec.device.close_unit(self._device)
        self._leave(-1, 0, -1, 0)
        rec.unit_id, rec.unit_page = self._outer, self._outer_page
        if self._outer and kind is None:  # else the unit that failed is the evidence
            rec.live.back_in(self._outer, self._outer_page)


class Communication(TimedSpan):
    """A collective or a point-to-point call: its entry is on record before the call is made."""

    __slots__ = ("_bytes", "_enqueued", "_group_peer", "_ordinal", "_slot")

    def __init__(
        self,
        rec: Recorder,
        head: int,
        slot: int,
        group: int,
        peer: int,
        num_bytes: int,
        ordinal: int,
        enqueued_ns: int = 0,
    ) -> None:
        self._rec = rec
        self._head = head
        self._id = 0
        self._group_peer = group << 32 | (peer + 1)
        self._slot = slot
        self._bytes = num_bytes
        self._ordinal = ordinal
        self._enqueued = enqueued_ns

    def __enter__(self) -> None:
        rec = self._rec
        rec.communicating.add(get_ident())
        rec.entered += 1
        self._enter()
        start = self._start
        live = rec.live
        live.group(self._slot, self._ordinal, self._ordinal - 1)
        live.update(
            start,
            rec.unit_id,
            self._head & 0xFFFFFFFF,
            self._group_peer,
            self._ordinal,
            start,
            self._bytes,
            rec.entered,
        )

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        rec = self._rec
        rec.communicating.discard(get_ident())
        if kind is not None:
            # It never completed. The pending entry stays in the live page: what was waited for
            # when the peer vanished is the evidence.
            if self._id:
                rec.parent = self._parent
            return
        self._leave(self._bytes, self._group_peer, self._ordinal, self._enqueued)
        live = rec.live
        live.group(self._slot, self._ordinal, self._ordinal)
        live.update(monotonic_ns(), rec.unit_id, entered=rec.entered)


class File(TimedSpan):
    """A file read or write; `add` counts its bytes, `note` attaches attributes."""

    __slots__ = ("_attrs", "_bytes")

    def __init__(self, rec: Recorder, head: int, attrs: dict[str, Any], num_bytes: int) -> None:
        super().__init__(rec, head)
        self._attrs = attrs
        self._bytes = num_bytes

    def add(self, num_bytes: int) -> None:
        """Count bytes read or written."""
        self._bytes = max(self._bytes, 0) + num_bytes

    def note(self, **fields: Any) -> None:
        """Attach attributes to the span."""
        self._attrs.update(fields)

    def __enter__(self) -> File:
        self._enter()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is not None:
            self._attrs["error"] = getattr(kind, "__name__", str(kind))
        attrs_id = self._rec.define_attrs(self._attrs) if self._attrs else 0
        self._leave(self._bytes, 0, -1, attrs_id)


class Counted:
    """A communication call while the recorder is quiet: it has used up an ordinal of its group,
    and layers below it use up none."""

    __slots__ = ("_rec",)

    def __init__(self, rec: Recorder, op: str, group: int, peer: int) -> None:
        self._rec = rec
        next_ordinal(rec, op, group, peer)

    def __enter__(self) -> None:
        self._rec.communicating.add(get_ident())

    def __exit__(self, *_: Any) -> None:
        self._rec.communicating.discard(get_ident())


def next_ordinal(rec: Recorder, op: str, group: int, peer: int) -> int:
    """The next ordinal of a group (collectives) or of an ordered pair (point-to-point)."""
    key: Any = (op, peer) if op in ("send", "recv") else group
    rec.ordinals[key] = ordinal = rec.ordinals.get(key, -1) + 1
    return ordinal


def communication(
    rec: Recorder,
    op: str,
    group: int,
    peer: int,
    num_bytes: int,
    dtype: str,
    enqueued_ns: int = 0,
    ordinal: int = -1,
) -> Communication:
    """A `Communication` for `op`; `peer` is the other side's global rank, -1 for collectives."""
    point_to_point = op in ("send", "recv")
    kind = KIND_P2P if point_to_point else KIND_COLLECTIVE
    key = (op, dtype, kind)
    head = rec.heads.get(key)
    if head is None:
        fields = {"name": op, "category": "comm", "op": op, "dtype": dtype, "timeline": "host"}
        head = rec.descriptor(kind, key, **fields)
    if ordinal < 0:
        ordinal = next_ordinal(rec, op, group, peer)
    slot = slot_of(op, group, peer) if point_to_point else group << 32
    return Communication(rec, head, slot, group, peer, num_bytes, ordinal, enqueued_ns)
