"""Lines of JSON: the rare ones written at once, the frequent ones with the records."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic_ns
from typing import Any

from harness_probe.gzip_file import GzipFile

SLOW_NS = 2_000_000
"""A write that takes longer is worth a thread of its own: it is as long as a fast step."""
MAX_PENDING_BYTES = 64 << 20
LEVEL = 6
"""A fifth smaller than level 1, for a few microseconds of the flusher a step."""
PIECE_BYTES = 1 << 18

_encode = json.JSONEncoder(separators=(",", ":"), default=str).encode


def line_of(meta_kind: str, fields: dict[str, Any]) -> bytes | None:
    """A line with its end; None where the fields are no JSON."""
    try:
        return _encode({"t": meta_kind, **fields}).encode() + b"\n"
    except (TypeError, ValueError):
        return None


class MetaFile:
    """Rare lines, each written at once: `rank-00003.meta.jsonl`.

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
        line = line_of(meta_kind, fields)
        with self._lock:
            if line is None:
                self.dropped += 1
            elif not self._slow:
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
            self.abandon()

    def abandon(self) -> None:
        """Close the file as it is; idempotent."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class UnitsFile:
    """Frequent lines, kept in memory until `flush`: `rank-00003.units.jsonl.gz`.

    A line that defines an id is flushed before any record that uses it (`SpanFile.flush`).
    """

    __slots__ = ("_closed", "_file", "_lock", "_waiting", "_write_lock", "dropped")

    def __init__(self, path: Path) -> None:
        self._file = GzipFile(path, LEVEL)
        self.dropped = 0
        self._closed = False
        self._waiting = bytearray()
        self._lock = threading.Lock()
        self._write_lock = threading.Lock()

    def write(self, meta_kind: str, /, **fields: Any) -> None:
        """Keep one line for `flush`; what cannot be kept is counted as dropped."""
        line = line_of(meta_kind, fields)
        with self._lock:
            if line is None or self._closed or len(self._waiting) >= MAX_PENDING_BYTES:
                self.dropped += 1
            else:
                self._waiting += line

    def flush(self) -> None:
        """Append what was written since; lines that the file system refuses are dropped."""
        with self._write_lock:
            with self._lock:
                data, self._waiting = self._waiting, bytearray()
            for piece in whole_lines(data):
                try:
                    self._file.append([piece])
                except OSError:
                    self.dropped += piece.count(b"\n")

    def close(self) -> None:
        """Flush and close; idempotent."""
        with self._lock:
            self._closed = True
        self.flush()
        self._file.close()

    def abandon(self) -> None:
        """Close the file as it is; idempotent."""
        self._closed = True
        self._file.abandon()


def whole_lines(data: bytearray) -> Iterator[bytes]:
    """Pieces that end where a line does, so that compressing takes little memory at once."""
    begin = 0
    while begin < len(data):
        end = data.find(b"\n", begin + PIECE_BYTES) + 1 or len(data)
        yield bytes(data[begin:end])
        begin = end
