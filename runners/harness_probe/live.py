"""The live page: what a rank is doing now. Format: docs/spool.md."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LIVE_BYTES = 4096
LIVE_MAGIC = b"HPLIVE01"
LIVE_HEAD = struct.Struct("<8s10q")
LIVE_SLOT = struct.Struct("<3q")
LIVE_TIME = struct.Struct("<q")
LIVE_UPDATED_AT, LIVE_UNIT_ID_AT = 16, 24
LIVE_GROUP_SLOTS = 64
LIVE_UNIT_AT = 2048
LIVE_UNIT = struct.Struct("<7q16s72s")
LIVE_PREFILL_AT = 2304
LIVE_RECORDED_AT = 2312
UNSET = -(1 << 63)
"""In place of a part of the key of work that the unit does not have."""
NUMBERS = ("step", "batch", "microbatch", "repeat")
SLOT_SEND = 1 << 31
SLOT_RECV = 1 << 30


def slot_of(op: str, group: int, peer: int) -> int:
    """Key of a slot: collectives of a group share one, whatever their root; messages have one a
    direction and peer."""
    if op == "send":
        return group << 32 | SLOT_SEND | (peer + 1)
    return group << 32 | SLOT_RECV | (peer + 1) if op == "recv" else group << 32


def packed_unit(unit_id: int, start_ns: int, key: Mapping[str, Any]) -> bytes:
    """A unit of work and its key as the page holds them; without a key where one is no number."""
    step, batch, microbatch, repeat = (key[name] for name in NUMBERS)
    perturbed = key["perturbed_by"]
    try:
        return LIVE_UNIT.pack(
            unit_id,
            start_ns,
            UNSET if step is None else step,
            UNSET if batch is None else batch,
            UNSET if microbatch is None else microbatch,
            UNSET if repeat is None else repeat,
            1 if key["warmup"] else 0,
            key["phase"].encode(),
            perturbed.encode() if perturbed else b"",
        )
    except (struct.error, TypeError, AttributeError):
        return bytes(LIVE_UNIT.size)


class LiveFile:
    """What this rank is doing now, rewritten in place in a mapped page.

    A mapped page outlives the process (the kernel keeps it), so the entry of a collective is
    on record before the call at the price of two `pack_into`. Where the file system cannot
    reserve or map the page the beacon is off: `map` is then an anonymous page nobody reads.
    """

    __slots__ = ("_slots", "map", "ok", "pid")

    def __init__(self, path: Path) -> None:
        self.pid = os.getpid()
        self._slots: dict[int, int] = {}
        self.ok = True
        self.map: mmap.mmap | bytearray
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
            try:
                # Reserved, not sparse: a store to a page that the disk cannot hold is SIGBUS.
                os.posix_fallocate(fd, 0, LIVE_BYTES)
                self.map = mmap.mmap(fd, LIVE_BYTES)
            finally:
                os.close(fd)
        except (OSError, ValueError):
            self.ok = False
            self.map = mmap.mmap(-1, LIVE_BYTES)
        self.update(0, 0)

    def update(
        self,
        now_ns: int,
        unit_id: int,
        descriptor: int = 0,
        group_peer: int = 0,
        ordinal: int = -1,
        start_ns: int = 0,
        num_bytes: int = -1,
        entered: int = 0,
    ) -> None:
        """Rewrite the head; `descriptor` 0 says that nothing is pending."""
        LIVE_HEAD.pack_into(
            self.map,
            0,
            LIVE_MAGIC,
            self.pid,
            now_ns,
            unit_id,
            descriptor,
            group_peer,
            ordinal,
            start_ns,
            num_bytes,
            entered,
            len(self._slots),
        )

    def touch(self, now_ns: int) -> None:
        """Say that something was recorded, and nothing else."""
        LIVE_TIME.pack_into(self.map, LIVE_UPDATED_AT, now_ns)

    def unit(self, packed: bytes) -> None:
        """Store a unit of work and its key (`packed_unit`): its line comes later."""
        self.map[LIVE_UNIT_AT : LIVE_UNIT_AT + LIVE_UNIT.size] = packed

    def back_in(self, unit_id: int, packed: bytes) -> None:
        """An inner unit has ended; a call that failed in it and is still pending stays."""
        self.unit(packed)
        LIVE_TIME.pack_into(self.map, LIVE_UNIT_ID_AT, unit_id)

    def prefill(self, start_ns: int) -> None:
        """Store when the first prefill began."""
        LIVE_TIME.pack_into(self.map, LIVE_PREFILL_AT, start_ns)

    def recorded(self, end_ns: int) -> None:
        """Store the end of the newest host span that was flushed."""
        LIVE_TIME.pack_into(self.map, LIVE_RECORDED_AT, end_ns)

    def pending(self) -> bool:
        """Whether a call was entered and not left."""
        return bool(LIVE_HEAD.unpack_from(self.map)[4])

    def group(self, key: int, entered: int, left: int) -> None:
        """Store the last ordinal entered and left of a slot (`slot_of`; the first 64)."""
        slot = self._slots.get(key)
        if slot is None:
            if len(self._slots) >= LIVE_GROUP_SLOTS:
                return
            slot = LIVE_HEAD.size + len(self._slots) * LIVE_SLOT.size
            self._slots[key] = slot
        LIVE_SLOT.pack_into(self.map, slot, key, entered, left)

    def close(self) -> None:
        """Unmap; idempotent. Calls still open write to memory that nobody reads."""
        page, self.map = self.map, bytearray(LIVE_BYTES)
        if isinstance(page, mmap.mmap):
            page.close()
