"""The records that a rank appends. Format: docs/spool.md."""

from __future__ import annotations

import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from harness_probe.gzip_file import GzipFile

MAGIC = b"HPSPAN01"
LAYOUT_PLANES = 1
RECORD = struct.Struct("<12q")
RECORD_BYTES = RECORD.size
RECORD_MARKER = 0x5A5A
BLOCK_HEAD = struct.Struct("<2I")
BLOCK_RECORDS = 512
HOST_KINDS = (1, 2, 5)
"""Spans, units and io: of calls the live page knows more."""

LEVEL = 1
"""Level 6 takes twice the time for a tenth less."""
CHUNK_BYTES = RECORD_BYTES * 2048
BLOCK_BYTES = RECORD_BYTES * BLOCK_RECORDS
MAX_PENDING_BYTES = 64 << 20
MAX_LOOKED_AT = 256


class SpanFile:
    """Fixed-width records, buffered in chunks and appended by `flush`: `rank-00003.spans.gz`.

    The recording thread packs a record at `chunk[offset]` and advances `offset`; nobody else
    touches either. `flush` may run in any thread: it takes what is complete under `_lock` and
    compresses and writes outside it, so that a slow file system never blocks the recording thread.
    """

    __slots__ = (
        "_file",
        "_flushed",
        "_foreign",
        "_lock",
        "_pending",
        "_pending_bytes",
        "_write_lock",
        "chunk",
        "dropped",
        "newest_ns",
        "offset",
        "written",
    )

    def __init__(self, path: Path) -> None:
        self._file = GzipFile(path, LEVEL)
        self._file.append([MAGIC + struct.pack("<II", RECORD_BYTES, LAYOUT_PLANES)])
        self.chunk = bytearray(CHUNK_BYTES)
        self.offset = 0
        self.dropped = 0
        self.written = 0
        self.newest_ns = 0
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
            parts = self._take()
            if before is not None:
                before()
            for part in parts:
                self.newest_ns = max(self.newest_ns, newest_end(part))
                for first in range(0, len(part), CHUNK_BYTES):
                    self._append(part[first : first + CHUNK_BYTES])

    def _take(self) -> list[memoryview]:
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
        return parts

    def _append(self, part: memoryview) -> None:
        count = len(part) // RECORD_BYTES
        try:
            self._file.append(blocks(part))
            self.written += count
        except OSError:
            self.dropped += count

    def close(self) -> None:
        """Flush and close; idempotent."""
        if self._file.fd >= 0:
            self.flush()
            self._file.close()

    def abandon(self) -> None:
        """Close the file as it is; idempotent."""
        self._file.abandon()


def blocks(records: memoryview) -> Iterator[bytes]:
    """Records as blocks of byte planes: first the first byte of every record, then the second.

    Bytes of one place are alike, which halves what compression leaves. A block of 512 records
    takes some 40 us, in which the interpreter's lock is held.
    """
    for first in range(0, len(records), BLOCK_BYTES):
        part = bytes(records[first : first + BLOCK_BYTES])
        planes = b"".join([part[place::RECORD_BYTES] for place in range(RECORD_BYTES)])
        yield BLOCK_HEAD.pack(len(part) // RECORD_BYTES, zlib.crc32(planes)) + planes


def newest_end(records: memoryview) -> int:
    """End of the last host span among records, in ns; 0: the last ones are none."""
    last = len(records) - RECORD_BYTES
    for place in range(last, max(-1, last - MAX_LOOKED_AT * RECORD_BYTES), -RECORD_BYTES):
        head, *_, end = struct.unpack_from("<6q", records, place)
        if head >> 40 & 0xFF in HOST_KINDS:
            return int(end)
    return 0
