"""Live pages: what a rank is doing now, out of the 4 KiB that it rewrites in place (docs/spool.md).

A page is not written atomically and may be cut, copied or overwritten: what cannot be is left out,
nothing here raises on content.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from harness_schemas import spool

_HEAD = struct.Struct(f"<8s{len(spool.LIVE_HEAD_FIELDS)}q")
_SLOT = struct.Struct("<3q")
_UNIT = struct.Struct(spool.LIVE_UNIT)
_TIME = struct.Struct("<q")
_LOOKS = 3
"""How often a page that changes while it is read is read again."""


@dataclass(frozen=True)
class PendingCall:
    """The call that a rank entered and has not left.

    `descriptor` and `group` are ids of the rank's meta file; `peer` is the other side of a message
    or the root, None where there is none; `start_ns` is CLOCK_MONOTONIC; None: not known.
    """

    descriptor: int
    group: int
    peer: int | None
    ordinal: int | None
    start_ns: int
    num_bytes: int | None


@dataclass(frozen=True)
class Slot:
    """Ordinals of the last call entered and left (-1: none): of a group's collectives, or of its
    messages to or from `peer` (`op` send or recv)."""

    group: int
    op: str | None
    peer: int | None
    entered: int
    left: int


@dataclass(frozen=True)
class UnitNow:
    """The unit of work that a rank is in, with its key: its line is written later.

    None: the unit has no such part.
    """

    start_ns: int
    phase: str
    step: int | None
    batch: int | None
    microbatch: int | None
    repeat: int | None
    warmup: bool
    perturbed_by: str | None


@dataclass(frozen=True)
class LivePage:
    """A page. `unit` 0: in no unit of work. `updated_ns` 0: nothing was recorded yet.

    `now`: the unit's key; None also in pages of older recordings. `prefill_ns`: begin of the first
    prefill; `recorded_ns`: end of the newest host span that was flushed; None: not known.
    """

    pid: int
    updated_ns: int
    unit: int
    entered: int
    pending: PendingCall | None
    slots: tuple[Slot, ...]
    now: UnitNow | None = None
    prefill_ns: int | None = None
    recorded_ns: int | None = None


def read_page(path: Path) -> LivePage | None:
    """The page in a file, read again while it changes; None: no file, or no page."""
    before = None
    for _ in range(_LOOKS):
        try:
            with path.open("rb") as stream:
                data = stream.read(spool.LIVE_BYTES)
        except OSError:
            return None
        if data == before:
            break
        before = data
    return parse_page(data)


def parse_page(data: bytes) -> LivePage | None:
    """A page out of its bytes; None where they are no page."""
    if len(data) < _HEAD.size:
        return None
    magic, *words = _HEAD.unpack_from(data)
    head = dict(zip(spool.LIVE_HEAD_FIELDS, words, strict=True))
    if magic != spool.LIVE_MAGIC:
        return None
    return LivePage(
        pid=max(head["pid"], 0),
        updated_ns=max(head["updated_ns"], 0),
        unit=max(head["unit_id"], 0),
        entered=max(head["entered"], 0),
        pending=_pending(head),
        slots=tuple(_slots(data, head["group_slots"])),
        now=_unit(data, head["unit_id"]),
        prefill_ns=_time(data, spool.LIVE_PREFILL_AT),
        recorded_ns=_time(data, spool.LIVE_RECORDED_AT),
    )


def _unit(data: bytes, current: int) -> UnitNow | None:
    if len(data) < spool.LIVE_UNIT_AT + _UNIT.size:
        return None
    values = _UNIT.unpack_from(data, spool.LIVE_UNIT_AT)
    key = dict(zip(spool.LIVE_UNIT_FIELDS, values, strict=True))
    phase, perturbed = (_text(key[name]) for name in ("phase", "perturbed_by"))
    # Stored apart from the head: for a moment they may name different units.
    if key["unit_id"] != current or current <= 0 or not phase or key["start_ns"] <= 0:
        return None
    numbers = {name: _number(key[name]) for name in ("step", "batch", "microbatch", "repeat")}
    warmup = bool(key["warmup"])
    return UnitNow(key["start_ns"], phase, **numbers, warmup=warmup, perturbed_by=perturbed)


def _number(value: int) -> int | None:
    return value if -(1 << 31) <= value < 1 << 31 else None


def _text(data: bytes) -> str | None:
    text = data.rstrip(b"\0")
    return text.decode("ascii") if text.isascii() and text else None


def _time(data: bytes, place: int) -> int | None:
    found = _TIME.unpack_from(data, place)[0] if len(data) >= place + _TIME.size else 0
    return found if found > 0 else None


def _pending(head: dict[str, int]) -> PendingCall | None:
    if head["pending_descriptor"] <= 0 or head["pending_start_ns"] <= 0:
        return None
    ordinal, size = head["pending_ordinal"], head["pending_bytes"]
    return PendingCall(
        descriptor=head["pending_descriptor"],
        group=head["pending_group_peer"] >> 32,
        peer=_peer(head["pending_group_peer"]),
        ordinal=ordinal if ordinal >= 0 else None,
        start_ns=head["pending_start_ns"],
        num_bytes=size if size >= 0 else None,
    )


def _slots(data: bytes, count: int) -> list[Slot]:
    found = []
    for index in range(min(max(count, 0), spool.LIVE_GROUP_SLOTS)):
        offset = _HEAD.size + index * _SLOT.size
        if offset + _SLOT.size > len(data):
            break
        key, entered, left = _SLOT.unpack_from(data, offset)
        # A slot is not stored atomically; a torn one is of no use.
        if key <= 0 or not (entered >= left >= -1 and entered >= 0):
            continue
        sends, receives = key & spool.SLOT_SEND, key & spool.SLOT_RECV
        op = "send" if sends else "recv" if receives else None
        found.append(Slot(key >> 32, op, _peer(key) if op else None, entered, left))
    return found


def _peer(word: int) -> int | None:
    peer = (word & spool.PEER_MASK) - 1
    return peer if peer >= 0 else None
