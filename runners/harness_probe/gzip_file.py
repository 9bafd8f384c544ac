"""A gzip stream that a rank appends to: wherever its file ends, all that was flushed inflates."""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterable
from pathlib import Path

GZIP_WBITS = 31


class GzipFile:
    """One gzip stream. `append` compresses and writes, all or nothing; one thread at a time.

    Where a write fails (disk full), what it left is cut off and the compressor goes back to where
    it was: what is appended later continues what is in the file.
    """

    __slots__ = ("_cut_due", "_deflate", "_size", "fd")

    def __init__(self, path: Path, level: int) -> None:
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        self._deflate = zlib.compressobj(level, zlib.DEFLATED, GZIP_WBITS)
        self._size = 0
        self._cut_due = False

    def append(self, pieces: Iterable[bytes]) -> None:
        """Append the pieces, so that they can be inflated from what is then in the file.

        Raises:
            OSError: none of them was written.
        """
        # Copying takes some 10 us; a step taken in the stream cannot be taken back.
        trial = self._deflate.copy()
        data = [trial.compress(piece) for piece in pieces]
        self._write(b"".join([*data, trial.flush(zlib.Z_SYNC_FLUSH)]))
        self._deflate = trial

    def _write(self, data: bytes) -> None:
        self._cut()
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(self.fd, left) :]
        except OSError:
            self._cut_due = len(left) < len(data)
            with contextlib.suppress(OSError):
                self._cut()
            raise
        self._size += len(data)

    def _cut(self) -> None:
        """Take off what a write that failed has left, at once or before the next one."""
        if self._cut_due:
            os.ftruncate(self.fd, self._size)
            self._cut_due = False

    def close(self) -> None:
        """End the stream and close the file; idempotent."""
        if self.fd >= 0:
            with contextlib.suppress(OSError):  # it inflates without its end, too
                self._write(self._deflate.flush(zlib.Z_FINISH))
        self.abandon()

    def abandon(self) -> None:
        """Close the file as it is; idempotent."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
