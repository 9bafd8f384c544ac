"""Tables of an SQLite file as numpy columns, read from its pages without SQLite.

SQLite hands out one row at a time: 0.65 million rows a second into arrays here, and it refuses a
file that lost its end. The records of a table repeat few layouts (which column has how many
bytes), so a layout is parsed once and all of its rows are gathered together. Only what reports
need is understood: plain tables, UTF-8, no journal. Format: sqlite.org/fileformat2.html.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from harness_collectors.nsys.export.declarations import parse_columns
from harness_collectors.nsys.export.layouts import (
    FIRST_BYTES,
    FIXED,
    INT,
    NULL,
    TEXT,
    Ints,
    Layout,
    Records,
    parse_header,
)

MAGIC: Final = b"SQLite format 3\0"
_LEAF, _INTERIOR = 13, 5
_UTF8: Final = 1
_DEEPEST: Final = 24
_PAGES_AT_ONCE: Final = 2048
_LONGEST_HEADER: Final = 512
_LONGEST_TEXT: Final = 1 << 16
_LONGEST_SPILT: Final = 1 << 20
_NO_ROW_IDS = re.compile(r"\)\s*(?:STRICT\s*,\s*)?WITHOUT\s+ROWID\b", re.IGNORECASE)
_REWRITTEN = re.compile(
    r"[\s(,\"`\[](?:start|end)[\"`\]]?\s+(?:REAL|FLOAT|DOUBLE|TEXT|NUMERIC)", re.I
)
"""Tables that other programs have written again: only an INTEGER's values are read from pages."""


class NotReadable(ValueError):
    """The file is no SQLite database, or of a kind that only SQLite itself can read."""


@dataclass(frozen=True)
class Table:
    """Where a table is, and its columns; `row_id`: the place of an INTEGER PRIMARY KEY, or -1."""

    root: int
    columns: tuple[str, ...]
    row_id: int


@dataclass
class Chunk:
    """Some rows: integers by column, texts (as binary arrays) by column."""

    size: int
    ints: dict[str, Ints]
    texts: dict[str, pa.Array]


_SCHEMA: Final = Table(1, ("type", "name", "tbl_name", "rootpage", "sql"), -1)


def _tables(schema: Iterator[Chunk]) -> dict[str, Table]:
    """The tables that the rows of the schema declare."""
    found = {}
    for chunk in schema:
        kinds, names, texts = (_strings(chunk.texts[n]) for n in ("type", "name", "sql"))
        for kind, name, sql, root in zip(
            kinds, names, texts, chunk.ints["rootpage"].tolist(), strict=True
        ):
            if kind == "view" or (sql and (_NO_ROW_IDS.search(sql) or _REWRITTEN.search(sql))):
                raise NotReadable("it has views, tables that are indices, or times as floats")
            if kind == "table" and name and sql:
                columns, row_id = parse_columns(sql)
                found[name] = Table(root, columns, row_id)
    return found


def _page_sizes(head: bytes) -> tuple[int, int]:
    """Size of a page, and what of it holds records, from the file's first 100 bytes."""
    size = int.from_bytes(head[16:18], "big")
    size = 65536 if size == 1 else size
    usable = size - head[20]
    if size < 512 or size & (size - 1) or usable < 480:
        raise NotReadable("its page size is damaged")
    if head[18] > 1 or int.from_bytes(head[56:60], "big") not in (0, _UTF8):
        raise NotReadable("it has a journal of its own, or is not in UTF-8")
    return size, usable


class PageFile:
    """One database file held in memory or mapped.

    `lost_pages`: pages that the file says it has and has not, or that cannot be what it says;
    `lost_rows`: rows that are not where their page says, or not whole. Both count as one reads.
    Raises NotReadable.
    """

    def __init__(self, buffer: Any) -> None:
        self._bytes = np.frombuffer(buffer, np.uint8)
        head = bytes(self._bytes[:100])
        if len(head) < 100 or not head.startswith(MAGIC):
            raise NotReadable("it is no SQLite database")
        self._page_size, self._usable = _page_sizes(head)
        self._pages = len(self._bytes) // self._page_size
        self.lost_pages = max(0, int.from_bytes(head[28:32], "big") - self._pages)
        self.lost_rows = 0
        # Any eight bytes of the file, as one number, by the place of the first.
        window = (max(0, len(self._bytes) - 7),)
        self._words = np.ndarray(window, "<u8", self._bytes.data, 0, (1,))
        self._at_end = True
        self._layouts: dict[bytes, Layout] = {}
        self.tables = _tables(self._chunks(_SCHEMA, ("rootpage",), ("type", "name", "sql")))

    def read(self, table: str, ints: Sequence[str], texts: Sequence[str] = ()) -> Iterator[Chunk]:
        """Rows of a table in the order of their ids; a column that it lacks is all NULL."""
        info = self.tables.get(table)
        if info is not None:
            yield from self._chunks(info, ints, texts)

    def _chunks(self, table: Table, ints: Sequence[str], texts: Sequence[str]) -> Iterator[Chunk]:
        leaves = self._leaves(table.root)
        for first in range(0, len(leaves), _PAGES_AT_ONCE):
            records = self._records(leaves[first : first + _PAGES_AT_ONCE])
            if records is not None:
                yield Chunk(
                    len(records.row_id),
                    {name: self._ints(records, table, name) for name in ints},
                    {name: self._texts(records, table, name) for name in texts},
                )

    # -- pages -------------------------------------------------------------------------------

    def _leaves(self, root: int) -> Ints:
        """Offsets of a table's leaf pages, in order."""
        self._at_end = True  # pages on the way may be the last ones, whatever was read before
        level = np.array([root], np.int64)
        leaves = []
        seen = 0
        for _ in range(_DEEPEST):
            sound = (level >= 1) & (level <= self._pages)
            offsets = (level[sound] - 1) * self._page_size
            kinds = self._bytes[offsets + self._header(offsets)]
            leaves.append(offsets[kinds == _LEAF])
            inner = offsets[kinds == _INTERIOR]
            self.lost_pages += len(level) - len(leaves[-1]) - len(inner)
            seen += len(level)
            if not len(inner) or seen > 2 * self._pages:
                break
            level = self._children(inner)
        found = np.concatenate(leaves)
        # A damaged page may name another one's children as its own.
        return found[np.sort(np.unique(found, return_index=True)[1])]

    def _header(self, offsets: Ints) -> Ints:
        """Where in a page its header is: the first page begins with the file's own."""
        return np.where(offsets == 0, 100, 0)

    def _children(self, offsets: Ints) -> Ints:
        header = offsets + self._header(offsets)
        page, cell = self._cells(offsets, 12)
        right = self._number(header + 8, 4)
        # The right-most child of a page comes after those of its cells.
        children = np.concatenate([self._number(cell, 4), right])
        order = np.argsort(np.concatenate([page, np.arange(len(offsets))]), kind="stable")
        return children[order]

    def _cells(self, offsets: Ints, header_size: int) -> tuple[Ints, Ints]:
        """For every cell of pages: which page, and where in the file."""
        header = offsets + self._header(offsets)
        most = (self._page_size - header_size) // 2
        counts = np.minimum(self._number(header + 3, 2), most)
        page = np.repeat(np.arange(len(offsets)), counts)
        place = np.arange(len(page)) - np.repeat(np.cumsum(counts) - counts, counts)
        pointer = self._number(header[page] + header_size + 2 * place, 2)
        sound = (pointer >= 8) & (pointer <= self._usable - 4)
        self.lost_rows += int((~sound).sum())
        return page[sound], (offsets[page] + pointer)[sound]

    # -- records -----------------------------------------------------------------------------

    def _records(self, leaves: Ints) -> Records | None:
        """The rows of leaf pages, their layouts found."""
        self._at_end = int(leaves.max()) + 2 * self._page_size > len(self._bytes)
        page, cell = self._cells(leaves, 8)
        length, place = self._varint(cell)
        row_id, start = self._varint(place)
        local = self._local(length)
        header_size, _ = self._varint(start)
        sound = (length > 0) & (start + local <= leaves[page] + self._page_size)
        sound &= (header_size > 0) & (header_size <= np.minimum(local, _LONGEST_HEADER))
        self.lost_rows += int((~sound).sum())
        rows = np.flatnonzero(sound)
        if not rows.size:
            return None
        start, header_size = start[rows], header_size[rows]
        layouts, layout = self._find_layouts(start, header_size)
        local = local[rows]
        longest = np.array([max(each.end, default=0) for each in layouts], np.int64)[layout]
        spilt = bool((longest > local).any())
        return Records(start, local, row_id[rows], layouts, layout, spilt)

    def _local(self, length: Ints) -> Ints:
        """How much of a payload is in its own page; the rest is in overflow pages."""
        most = self._usable - 35
        least = (self._usable - 12) * 32 // 255 - 23
        kept = least + (length - least) % (self._usable - 4)
        return np.where(length <= most, length, np.where(kept <= most, kept, least))

    def _find_layouts(self, start: Ints, size: Ints) -> tuple[list[Layout], Ints]:
        """Distinct record headers, parsed, and which one each row has."""
        mixed = np.zeros(len(start), np.uint64)
        shortest = int(size.min())
        for word in range(-(-int(size.max()) // 8)):
            value = self._swapped(start + 8 * word)
            if shortest < 8 * word + 8:
                value &= FIRST_BYTES[np.clip(size - 8 * word, 0, 8)]
            mixed ^= value
            mixed *= np.uint64(0x9E3779B97F4A7C15)
            mixed ^= mixed >> np.uint64(29)
        _, first, layout = np.unique(mixed, return_index=True, return_inverse=True)
        texts = [
            self._bytes[at : at + length].tobytes()
            for at, length in zip(start[first].tolist(), size[first].tolist(), strict=True)
        ]
        return [self._layout(text) for text in texts], layout.reshape(-1)

    def _layout(self, header: bytes) -> Layout:
        found = self._layouts.get(header)
        if found is None:
            found = self._layouts[header] = parse_header(header)
        return found

    # -- values ------------------------------------------------------------------------------

    def _ints(self, records: Records, table: Table, name: str) -> Ints:
        column = _place(table, name)
        if column is not None and column == table.row_id:
            return records.row_id
        kinds = records.kinds(column)
        if not (kinds == INT).any():
            return FIXED[kinds][records.layout]
        end = records.ends(column)
        shift = records.shifts(column)
        value = self._word(records.start + (end - 8), records.spilt).view(np.int64)
        value <<= shift
        value >>= shift
        if (kinds != INT).any():
            value = np.where((kinds == INT)[records.layout], value, FIXED[kinds][records.layout])
        if records.spilt:
            size = records.sizes(column)
            for row in np.flatnonzero((end > records.local) & (size > 0)).tolist():
                text = self._spilt(records, row, int(end[row] - size[row]), int(size[row]))
                whole = text is not None and kinds[records.layout[row]] == INT
                value[row] = int.from_bytes(text or b"", "big", signed=True) if whole else NULL
        return value

    def _texts(self, records: Records, table: Table, name: str) -> pa.Array:
        column = _place(table, name)
        known = (records.kinds(column) == TEXT)[records.layout]
        size = np.where(known, np.minimum(records.sizes(column), _LONGEST_TEXT), 0)
        offset = records.ends(column) - records.sizes(column)
        spilt = np.flatnonzero(offset + size > records.local)
        begin, fetched = records.start + offset, {}
        for row in spilt.tolist():
            fetched[row] = self._spilt(records, row, int(offset[row]), int(size[row]))
            size[row] = 0
        found = gather(self._bytes, begin, size, known)
        if not fetched:
            return found
        values = found.to_pylist()
        for row, text in fetched.items():
            values[row] = text
        return pa.array(values, pa.large_binary())

    def _spilt(self, records: Records, row: int, offset: int, size: int) -> bytes | None:
        """A value that goes on in overflow pages, or lies there; None where they are lost."""
        start, local = int(records.start[row]), int(records.local[row])
        payload = bytearray(self._bytes[start : start + local].tobytes())
        page = int(self._number(np.array([start + local]), 4)[0])
        if offset + size > _LONGEST_SPILT:  # no row is that long: its header is damaged
            page = 0
        while len(payload) < offset + size and 1 <= page <= self._pages:
            at = (page - 1) * self._page_size
            payload += self._bytes[at + 4 : at + self._usable].tobytes()
            page = int(self._number(np.array([at]), 4)[0])
        if len(payload) < offset + size:
            self.lost_rows += 1
            return None
        return bytes(payload[offset : offset + size])

    # -- numbers -----------------------------------------------------------------------------

    def _word(self, place: Ints, anywhere: bool = False) -> NDArray[np.uint64]:
        """Eight bytes from each place on, the first one highest; 0 beyond the file."""
        return self._swapped(place, anywhere).byteswap(inplace=True)

    def _swapped(self, place: Ints, anywhere: bool = False) -> NDArray[np.uint64]:
        """The same with the first byte lowest. `anywhere`: places may lie outside of pages."""
        last = len(self._words) - 1
        if not (self._at_end or anywhere) or not place.size or int(place.max()) <= last:
            return self._words[place]
        beyond = np.clip(place - last, 0, 8)
        word = self._words[np.minimum(place, last)]
        return np.where(beyond < 8, word >> (8 * (beyond & 7)).astype(np.uint64), 0)

    def _number(self, place: Ints, size: int) -> Ints:
        """Unsigned big-endian numbers of a few bytes."""
        return (self._word(place) >> np.uint64(64 - 8 * size)).astype(np.int64)

    def _varint(self, place: Ints) -> tuple[Ints, Ints]:
        """Variable-length numbers, and where each ends."""
        word = self._word(place)
        value = np.zeros(len(place), np.int64)
        length = np.zeros(len(place), np.int64)
        open_ = np.ones(len(place), np.bool_)
        for byte in range(9):
            bits = (
                ((word >> np.uint64(56 - 8 * byte)) & np.uint64(0xFF)).astype(np.int64)
                if byte < 8
                else self._number(place + 8, 1)
            )
            low = bits & 0x7F if byte < 8 else bits
            value = np.where(open_, (value << (7 if byte < 8 else 8)) | low, value)
            length += open_
            open_ &= bits >= 0x80
            if not open_.any():
                break
        return value, place + length


# -- texts ---------------------------------------------------------------------------------


def gather(data: NDArray[np.uint8], begin: Ints, size: Ints, known: NDArray[np.bool_]) -> pa.Array:
    """Slices of `data` as one binary array, NULL where not `known`."""
    offsets = np.zeros(len(size) + 1, np.int64)
    np.cumsum(size, out=offsets[1:])
    place = np.repeat(begin - offsets[:-1], size)
    place += np.arange(len(place))
    valid = pa.array(known).buffers()[1]
    buffers = [valid, pa.py_buffer(offsets), pa.py_buffer(data[place])]
    return pa.Array.from_buffers(pa.large_binary(), len(size), buffers)


def _strings(texts: pa.Array) -> list[str | None]:
    return [None if v is None else v.decode("utf-8", "replace") for v in texts.to_pylist()]


def _place(table: Table, name: str) -> int | None:
    return table.columns.index(name) if name in table.columns else None
