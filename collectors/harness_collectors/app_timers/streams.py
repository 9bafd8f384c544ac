"""A rank's records and frequent lines, plain or compressed, read as far as they go (docs/spool.md).

Nothing here raises on what a file holds: what was read, and why no more, is noted beside it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from harness_collectors.reading import gunzip
from harness_schemas import spool

if TYPE_CHECKING:
    import numpy as np

CHUNK_RECORDS = 1 << 18
"""Records decoded at once: about 100 MB of Arrow columns, whatever the file's size."""
MAX_LINE_BYTES = 64 << 20
_LATEST_NS = 1 << 61
"""What is far from any clock's time is damage, and would not fit into sums."""
_HEADER = struct.Struct("<8s2I")
_BLOCK = struct.Struct(spool.BLOCK_HEAD)


@dataclass
class SpoolFile:
    """Where a rank's records are and, once they were read, what of the file could not be used.

    `records`: those found, sound or not; `torn_bytes`: after the last whole record or block;
    `cut`: why a compressed file could not be read to its end; `readable`: it is a spool at all.
    """

    path: Path
    records: int = 0
    torn_bytes: int = 0
    cut: str = ""
    readable: bool = False


def find_records(meta: Path) -> SpoolFile:
    """The records of the rank with this meta file; those of older recordings are plain."""
    return SpoolFile(spool.beside(meta, spool.RECORDS, spool.PLAIN_RECORDS))


def read_records(file: SpoolFile) -> Iterator[np.ndarray]:
    """Records in chunks, shape (n, RECORD_WORDS) int64; those that are none are dropped."""
    try:
        stream = file.path.open("rb")
    except OSError:
        return
    with stream:
        plain = file.path.name.endswith(spool.PLAIN_RECORDS)
        for columns in _plain(file, stream) if plain else _inflated(file, stream):
            sound = (columns[0] >> 48) == spool.RECORD_MARKER
            sound &= columns[5] >= columns[4]
            sound &= (columns[4] > -_LATEST_NS) & (columns[5] < _LATEST_NS)
            yield (columns if sound.all() else columns[:, sound]).T


def _plain(file: SpoolFile, stream: BinaryIO) -> Iterator[np.ndarray]:
    """Columns of plain records, shape (RECORD_WORDS, n)."""
    import numpy as np

    header = stream.read(spool.HEADER_BYTES)
    if not _is_header(header):
        file.torn_bytes = file.path.stat().st_size
        return
    file.readable = True
    while data := stream.read(CHUNK_RECORDS * spool.RECORD_BYTES):
        file.torn_bytes = len(data) % spool.RECORD_BYTES
        count = len(data) // spool.RECORD_BYTES
        file.records += count
        if count:
            table = np.frombuffer(data, dtype="<i8", count=count * spool.RECORD_WORDS)
            yield table.reshape(-1, spool.RECORD_WORDS).T


def _inflated(file: SpoolFile, stream: BinaryIO) -> Iterator[np.ndarray]:
    """Columns of records out of blocks of byte planes, shape (RECORD_WORDS, n)."""
    import numpy as np

    def fresh() -> np.ndarray:  # whoever took the last one may still hold it
        return np.empty((spool.RECORD_WORDS, CHUNK_RECORDS), dtype="<i8")

    columns, filled = fresh(), 0
    for planes in _blocks(file, gunzip.inflate(stream, file)):
        count = len(planes) // spool.RECORD_BYTES
        if filled + count > CHUNK_RECORDS:
            yield columns[:, :filled]
            columns, filled = fresh(), 0
        cells = columns.view(np.uint8).reshape(spool.RECORD_WORDS, CHUNK_RECORDS, 8)
        words = np.frombuffer(planes, dtype=np.uint8).reshape(spool.RECORD_WORDS, 8, count)
        cells[:, filled : filled + count] = words.transpose(0, 2, 1)
        filled += count
    if filled:
        yield columns[:, :filled]


def _blocks(file: SpoolFile, pieces: Iterator[bytes]) -> Iterator[memoryview]:
    """The planes of every block that is whole; the others' records are counted."""
    held = b""
    for piece in pieces:
        held, place = held + piece, 0
        if not file.readable:
            if len(held) < spool.HEADER_BYTES:
                continue
            if not _is_header(held[: spool.HEADER_BYTES], spool.LAYOUT_PLANES):
                return
            file.readable, place = True, spool.HEADER_BYTES
        while len(held) - place >= _BLOCK.size:
            count, crc = _BLOCK.unpack_from(held, place)
            if not 0 < count <= spool.BLOCK_RECORDS:
                file.cut = "a block of records is damaged"
                file.torn_bytes = len(held) - place
                return
            end = place + _BLOCK.size + count * spool.RECORD_BYTES
            if end > len(held):
                break
            planes = memoryview(held)[place + _BLOCK.size : end]
            file.records += count
            if zlib.crc32(planes) == crc:
                yield planes
            place = end
        held = held[place:]
    file.torn_bytes = len(held)


def _is_header(data: bytes, layout: int = spool.LAYOUT_PLAIN) -> bool:
    wanted = _HEADER.pack(spool.MAGIC, spool.RECORD_BYTES, layout)
    return data == wanted if layout else data.startswith(spool.MAGIC) and len(data) == len(wanted)


@dataclass
class LinesFile:
    """A rank's frequent lines; `cut`: why they could not be read to their end."""

    path: Path
    cut: str = ""

    def read(self) -> Iterator[bytes]:
        """The lines in order, the last one maybe cut; none where there is no file."""
        try:
            stream = self.path.open("rb")
        except OSError:
            return
        held = b""
        with stream:
            for piece in gunzip.inflate(stream, self):
                *lines, held = (held + piece).split(b"\n")
                yield from lines
                if len(held) > MAX_LINE_BYTES:
                    self.cut = "a line has no end"
                    return
        if held:
            yield held
