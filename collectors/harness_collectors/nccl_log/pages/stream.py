"""Reading logs of any size in blocks of whole lines, gzipped or not, in bounded memory."""

from __future__ import annotations

import codecs
import os
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

BLOCK_BYTES: Final = 4 << 20
"""Half as much is a tenth slower, twice as much no quicker."""
MAX_LINE_BYTES: Final = 1 << 20
"""A longer line is nobody's log line: it is dropped and counted, never held."""

FREE_BYTES: Final = 256 << 20
MAX_RATIO: Final = 400
"""Beyond FREE_BYTES, text that is this much larger than its gzip file is a bomb: real logs of
nothing but equal lines stay below 300."""

_GZIP_MAGIC: Final = b"\x1f\x8b"
_GZIP_WINDOW: Final = 31  # zlib's wbits for a gzip header and 32 KiB of history


@dataclass
class Intake:
    """What reading one file came to; complete once its blocks have been drained."""

    path: Path
    span: tuple[int, int] | None = None
    """Only the lines that begin between these bytes of a plain file."""
    stored_bytes: int = 0
    decoded_bytes: int = 0
    overlong: int = 0
    """Lines dropped for their length."""
    ended: str = ""
    """Why reading stopped before the end of the text; empty: it did not."""
    unterminated: bool = False
    """The last line has no line end: it may be cut."""

    def add(self, more: Intake) -> None:
        """Reading went on with what lies behind."""
        self.stored_bytes += more.stored_bytes
        self.decoded_bytes += more.decoded_bytes
        self.overlong += more.overlong
        self.ended = self.ended or more.ended
        self.unterminated = more.unterminated

    def blocks(self, block_bytes: int = BLOCK_BYTES) -> Iterator[bytes]:
        """Blocks that end where a line ends; only the last may lack its line end.

        Never raises: what cannot be read ends the blocks and is said in `ended`.
        """
        rest = b""
        skipping = False
        for part in self._parts(block_bytes):
            if skipping:
                end = part.find(b"\n")
                if end < 0:
                    continue
                part, skipping = part[end + 1 :], False
            end = part.rfind(b"\n") + 1
            if end:
                yield b"".join((rest, memoryview(part)[:end]))
                rest = part[end:]
            else:
                rest += part
            if len(rest) > MAX_LINE_BYTES:
                self.overlong += 1
                rest, skipping = b"", True
        if rest:
            self.unterminated = True
            yield rest

    def _parts(self, block_bytes: int) -> Iterator[bytes]:
        try:
            with self.path.open("rb") as stream:
                head = stream.read(len(_GZIP_MAGIC))
                stream.seek(0)
                if self.span is None and head == _GZIP_MAGIC:
                    parts = _as_utf8(self._inflated(stream, block_bytes))
                elif self.span is None or self.span[0] == 0:
                    parts = _as_utf8(self._plain(stream, block_bytes))
                else:
                    parts = self._plain(stream, block_bytes)
                for part in parts:
                    self.decoded_bytes += len(part)
                    yield part
        except OSError as error:
            self.ended = f"cannot be read: {error.strerror or error}"

    def _plain(self, stream: BinaryIO, block_bytes: int) -> Iterator[bytes]:
        """Parts that end where those of the whole file would, so that both drop the same lines."""
        begin, end = self.span or (0, os.fstat(stream.fileno()).st_size or sys.maxsize)
        if begin:
            stream.seek(begin - 1)
            begin += sum(map(len, _line(stream, block_bytes))) - 1
        last = b"\n"
        while begin < end:
            last = stream.read(min(block_bytes - begin % block_bytes, end - begin))
            if not last:
                return
            self.stored_bytes += len(last)
            begin += len(last)
            yield last
        if not last.endswith(b"\n"):
            for part in _line(stream, block_bytes):
                self.stored_bytes += len(part)
                yield part

    def _inflated(self, stream: BinaryIO, block_bytes: int) -> Iterator[bytes]:
        """Decoded parts of a gzip file of any number of members, up to a tear or the limit."""
        decoder = zlib.decompressobj(_GZIP_WINDOW)
        pending = b""
        while pending := pending or self._more(stream):
            before = decoder.copy()
            try:
                part = decoder.decompress(pending, block_bytes)
            except zlib.error:
                self.ended = "its gzip stream is damaged"
                yield _salvage(before, pending)
                return
            pending = decoder.unconsumed_tail
            if part:
                yield part
            if self.decoded_bytes > max(FREE_BYTES, MAX_RATIO * self.stored_bytes):
                self.ended = f"text over {MAX_RATIO} times its gzip file's size: not a log"
                return
            if decoder.eof:
                pending = decoder.unused_data + self._more(stream)
                if not pending.startswith(_GZIP_MAGIC):
                    return  # the end, or padding after the last member
                decoder = zlib.decompressobj(_GZIP_WINDOW)
        yield decoder.flush()
        if not decoder.eof:
            self.ended = "its gzip stream is cut"

    def _more(self, stream: BinaryIO) -> bytes:
        part = stream.read(64 << 10)
        self.stored_bytes += len(part)
        return part


def _line(stream: BinaryIO, block_bytes: int) -> Iterator[bytes]:
    """The rest of the line at hand, in parts."""
    while part := stream.readline(block_bytes):
        yield part
        if part.endswith(b"\n"):
            return


def _as_utf8(parts: Iterator[bytes]) -> Iterator[bytes]:
    """Text without a byte order mark, recoded where that says UTF-16."""
    first = next((part for part in parts if part), b"")
    utf16 = first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if not utf16:
        yield first.removeprefix(codecs.BOM_UTF8)
        yield from parts
        return
    decoder = codecs.getincrementaldecoder("utf-16")("replace")
    yield decoder.decode(first).encode("utf-8", "replace")
    for part in parts:
        yield decoder.decode(part).encode("utf-8", "replace")


def span_bytes(path: Path) -> int:
    """Bytes of a file that may be read in spans of whole lines; 0: only as a whole."""
    try:
        with path.open("rb") as stream:
            head = stream.read(2)
            whole = head in (_GZIP_MAGIC, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
            return 0 if whole else os.fstat(stream.fileno()).st_size
    except OSError:
        return 0


def _salvage(decoder: zlib._Decompress, damaged: bytes) -> bytes:
    """What of a damaged piece can be decoded: a few bytes at a time, up to the damage."""
    text = bytearray()
    for start in range(0, len(damaged), 64):
        try:
            text += decoder.decompress(damaged[start : start + 64])
        except zlib.error:
            break
    return bytes(text)
