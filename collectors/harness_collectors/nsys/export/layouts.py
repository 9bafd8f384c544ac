"""Layouts of an SQLite file's records: which column has how many bytes, and where.

The records of a table repeat few of them. Format: sqlite.org/fileformat2.html, section 2.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
NULL: Final = np.iinfo(np.int64).min
"""Stands for SQL's NULL, and for what is no integer, in columns of integers."""

_INT_BYTES: Final = (0, 1, 2, 3, 4, 6, 8)
_NULL, INT, ONE, ZERO, TEXT, OTHER = range(6)
"""What a value is, by its serial type; 0 also where there is none."""
FIXED: Final = np.array([NULL, NULL, 1, 0, NULL, NULL], np.int64)
"""Values that a kind has without a byte in the body."""
FIRST_BYTES: Final = np.array([2 ** (8 * kept) - 1 for kept in range(9)], np.uint64)
"""Masks that keep the first bytes of a word, which are its lowest."""


@dataclass(frozen=True)
class Layout:
    """Of each column of a record: its kind, how long its value is, and where that ends."""

    kind: list[int]
    size: list[int]
    end: list[int]


@dataclass(frozen=True)
class Records:
    """Rows found in pages. `local`: bytes of the payload that are in the row's own page."""

    start: Ints
    local: Ints
    row_id: Ints
    layouts: list[Layout]
    layout: Ints
    spilt: bool
    """Some payload goes on in overflow pages, or is shorter than its header says."""

    def kinds(self, column: int | None) -> Ints:
        """What the column holds, by layout; NULL where there is no such column."""
        return self._by_layout("kind", column)

    def sizes(self, column: int | None) -> Ints:
        """Bytes of the column's values, by row."""
        return self._by_layout("size", column)[self.layout]

    def ends(self, column: int | None) -> Ints:
        """Where in the payload the values end, by row."""
        return self._by_layout("end", column)[self.layout]

    def shifts(self, column: int | None) -> Ints:
        """Bits of a word before the values' own, by row."""
        sizes = self._by_layout("size", column)
        return np.where((sizes > 0) & (sizes < 8), 64 - 8 * sizes, 0)[self.layout]

    def _by_layout(self, what: str, column: int | None) -> Ints:
        values: list[list[int]] = [getattr(layout, what) for layout in self.layouts]
        known = (v[column] if column is not None and column < len(v) else 0 for v in values)
        return np.fromiter(known, np.int64, len(values))


def parse_header(header: bytes) -> Layout:
    """The serial types of a record's header; the body follows it."""
    _, at = _scalar_varint(header, 0)
    kinds, sizes, ends = [], [], []
    body = len(header)
    while at < len(header):
        serial, at = _scalar_varint(header, at)
        kind, size = _kind_of(serial)
        body += size
        kinds.append(kind)
        sizes.append(size)
        ends.append(body)
    return Layout(kinds, sizes, ends)


def _kind_of(serial: int) -> tuple[int, int]:
    if serial >= 12:
        return (TEXT, (serial - 12) // 2)
    if 1 <= serial <= 6:
        return INT, _INT_BYTES[serial]
    return {7: (OTHER, 8), 8: (ZERO, 0), 9: (ONE, 0)}.get(serial, (_NULL, 0))


def _scalar_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for byte in range(9):
        if at >= len(data):
            break
        bits = data[at]
        at += 1
        if byte == 8:
            return value << 8 | bits, at
        value = value << 7 | bits & 0x7F
        if bits < 0x80:
            break
    return value, at
