"""The files a rank appends to. Format: docs/spool.md."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic_ns
from typing import Any

MAGIC = b"HPSPAN01"
RECORD = struct.Struct("<12q")
RECORD_BYTES = RECORD.size
RECORD_MARKER = 0x5A5A
LIVE_BYTES = 4096
LIVE_MAGIC = b"HPLIVE01"
LIVE_HEAD = struct.Struct("<8s10q")
LIVE_SLOT = struct.Struct("<3q")
LIVE_TIME = struct.Struct("<q")
LIVE_GROUP_SLOTS = 64
SLOT_SEND = 1 << 31
SLOT_RECV = 1 << 30

SLOW_NS = 2_000_000
"""A write that takes longer is worth a thread of its own: it is as long as a fast step."""
CHUNK_BYTES = RECORD_BYTES * 2048
MAX_PENDING_BYTES = 64 << 20


def slot_of(op: str, group: int, peer: int) -> int:
    """Key of a slot: collectives of a group share one, whatever their root; messages have one a
    direction and peer."""
    if op == "send":
        return group << 32 | SLOT_SEND | (peer + 1)
    return group << 32 | SLOT_RECV | (peer + 1) if op == "recv" else group << 32


class SpanFile:
    """Fixed-width records, buffered in chunks and appended by `flush`.

    The recording thread packs a record at `chunk[offset]` and advances `offset`; nobody else
    touches either. `flush` may run in any thread: it takes what is complete under `_lock` and
    writes outside it, so that a slow file system never blocks the recording thread.
    """

    __slots__ = (
        "_flushed",
        "_foreign",
        "_lock",
        "_pending",
        "_pending_bytes",
        "_write_lock",
        "chunk",
        "dropped",
        "fd",
        "offset",
        "written",
    )

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        os.write(self.fd, MAGIC + struct.pack("<II", RECORD_BYTES, 0))
        self.chunk = bytearray(CHUNK_BYTES)
        self.offset = 0
        self.dropped = 0
        self.written = 0
        self._flushed = 0
        self._foreign = bytearray()
        self._pending: list[tuple[bytearray, int]] = []
        self._pending_bytes = 0
        self._lock = threading.Lock()
        self._write_lock = threading.Lock()

    def add_foreign(self, record: bytes) -> None:
        """Take a whole record from a thread that is not the recording one."""
        with self._lock:
            if len(self._foreign) >= MAX_PENDING_BYTES:
                self.dropped += 1
            else:
                self._foreign += record

    def roll(self) -> None:
        """Set the full chunk aside and go on in a fresh one (recording thread only)."""
        with self._lock:
            size = self.offset - self._flushed
            if self._pending_bytes + size > MAX_PENDING_BYTES:
                self.dropped += size // RECORD_BYTES
            else:
                self._pending.append((self.chunk, self._flushed))
                self._pending_bytes += size
            self.chunk = bytearray(CHUNK_BYTES)
            self.offset = 0
            self._flushed = 0

    def flush(self, before: Callable[[], None] | None = None) -> None:
        """Append everything complete; what the file system refuses is counted as dropped.

        `before` is called when it is settled what will be written: lines that define its ids.
        """
        with self._write_lock:
            with self._lock:
                parts = [memoryview(chunk)[first:] for chunk, first in self._pending]
                self._pending.clear()
                self._pending_bytes = 0
                if self._foreign:
                    parts.append(memoryview(self._foreign))
                    self._foreign = bytearray()
                end = self.offset
                if end > self._flushed:
                    parts.append(memoryview(self.chunk)[self._flushed : end])
                    self._flushed = end
            if before is not None:
                before()
            for part in parts:
                self._append(part)

    def _append(self, part: memoryview) -> None:
        done = 0
        try:
            while done < len(part):
                done += os.write(self.fd, part[done:])
        except OSError:
            # Cut back to whole records: a later flush that succeeds must stay aligned.
            whole = done - done % RECORD_BYTES
            if done != whole:
                with contextlib.suppress(OSError):
                    os.ftruncate(self.fd, os.fstat(self.fd).st_size - (done - whole))
            self.dropped += (len(part) - whole) // RECORD_BYTES
            done = whole
        self.written += done // RECORD_BYTES

    def close(self) -> None:
        """Flush and close; idempotent."""
        if self.fd >= 0:
            self.flush()
            os.close(self.fd)
            self.fd = -1


class MetaFile:
    """JSON lines, each written at once: a record never refers to an id that is not on disk.

    Once a write has taken longer than `SLOW_NS`, lines are left to `flush`, which runs in a
    thread of its own, until the file system is fast again: it slows no step down twice.
    """

    __slots__ = ("_lock", "_slow", "_torn", "_waiting", "_write_lock", "dropped", "fd")

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        self.dropped = 0
        self._torn = False
        self._slow = False
        self._waiting = bytearray()
        self._lock = threading.Lock()
        self._write_lock = threading.Lock()

    def write(self, meta_kind: str, /, **fields: Any) -> None:
        """Append one line; on failure (disk full, closed, no JSON) count it as dropped."""
        with self._lock:
            try:
                text = json.dumps({"t": meta_kind, **fields}, separators=(",", ":"), default=str)
            except (TypeError, ValueError):
                self.dropped += 1
                return
            line = text.encode() + b"\n"
            if not self._slow:
                self._slow = self._append(line) > SLOW_NS
            elif len(self._waiting) < MAX_PENDING_BYTES:
                self._waiting += line
            else:
                self.dropped += 1

    def flush(self) -> None:
        """Append what was left to this call."""
        with self._write_lock:
            with self._lock:
                data, self._waiting = self._waiting, bytearray()
            if not data:
                return
            # Nobody else writes meanwhile: the file is still held to be slow.
            fast = self._append(bytes(data)) <= SLOW_NS
            with self._lock:
                self._slow = not fast or bool(self._waiting)

    def _append(self, data: bytes) -> int:
        """Write whole lines, counting those that were not; returns how long it took."""
        began = monotonic_ns()
        mend = b"\n" if self._torn else b""  # end what a full disk cut: readers skip that line
        try:
            done = os.write(self.fd, mend + data) - len(mend)
            self._torn = done < len(data)
            self.dropped += data.count(b"\n", max(0, done))
        except OSError:
            self.dropped += data.count(b"\n")
        return monotonic_ns() - began

    def close(self) -> None:
        """Flush and close; idempotent."""
        self.flush()
        with self._lock:
            if self.fd >= 0:
                os.close(self.fd)
                self.fd = -1


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
        LIVE_TIME.pack_into(self.map, 16, now_ns)

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
