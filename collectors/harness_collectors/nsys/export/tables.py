"""Exports of Nsight Systems, whatever they are stored as: tables as columns, probed by name.

An export is an SQLite file (plain or gzip), or a folder of Parquet or Arrow files, one a table
(`nsys export --type sqlite|parquetdir|arrowdir`). Tables exist only where there was something to
put into them, and columns come and go with the version: what is missing reads as nothing.
"""

from __future__ import annotations

import contextlib
import gzip
import mmap
import re
import sqlite3
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa

from harness_collectors.nsys.export.layouts import NULL, Ints
from harness_collectors.nsys.export.pages import MAGIC, Chunk, NotReadable, PageFile
from harness_collectors.reading.read_ahead import read_ahead

ROWS_AT_ONCE: Final = 1 << 16
CHUNKS_AHEAD: Final = 2
_MOST_INFLATED: Final = 64 << 30
_MOST_RATIO: Final = 1000
"""gzip cannot shrink anything further than about this; exports reach 5."""
_DAMAGE: Final = (OSError, ValueError, pa.ArrowException)
"""What pyarrow raises over damaged files; texts that are no UTF-8 among them."""
_ARROW_FILE: Final = b"ARROW1"
"""Begins an Arrow file; nsys writes streams, which others rewrite."""
_EXACT: Final = float(2**53)
"""Below, float64 holds every whole number."""
_LARGEST_SMALL: Final = 64 << 20


class ExportError(Exception):
    """Nothing can be read; the message says why and what to do."""


class Export(Protocol):
    """Tables of one report."""

    @property
    def lost(self) -> int:
        """Rows and pages that could not be read."""

    def columns(self, table: str) -> tuple[str, ...]:
        """Names of a table's columns; empty where there is no such table."""

    def chunks(self, table: str, ints: Sequence[str], texts: Sequence[str] = ()) -> Iterator[Chunk]:
        """Rows of a table, some at a time; columns that it lacks are all NULL."""


def large_chunks(
    export: Export, table: str, ints: Sequence[str], texts: Sequence[str] = ()
) -> Iterator[Chunk]:
    """Rows of a table of millions, the next ones read while the last are used. Nothing else may
    be read of the export meanwhile."""
    return read_ahead(iter(export.chunks(table, ints, texts)), CHUNKS_AHEAD)


def load(
    export: Export, table: str, ints: Sequence[str], texts: Sequence[str] = ()
) -> tuple[dict[str, Ints], dict[str, pa.Array]]:
    """A whole table: integers and texts by column."""
    chunks = list(export.chunks(table, ints, texts))
    columns = {
        name: np.concatenate([chunk.ints[name] for chunk in chunks] or [np.zeros(0, np.int64)])
        for name in ints
    }
    found = {
        name: pa.chunked_array([c.texts[name] for c in chunks], pa.large_binary()).combine_chunks()
        for name in texts
    }
    return columns, found


_VERSIONED = re.compile(r"(.+)_V(\d{1,3})")


def plain_names(names: Iterable[str]) -> dict[str, str]:
    """Tables by the names that are asked for: some exports number theirs, as `NVTX_EVENTS_V2`,
    and the latest of those stands for all where there is none without a number."""
    found: dict[str, tuple[int, str]] = {}
    for name in names:
        match = _VERSIONED.fullmatch(name)
        key, version = (match[1], int(match[2])) if match else (name, 1 << 10)
        found[key] = max(found.get(key, (-1, "")), (version, name))
        found.setdefault(name, (0, name))
    return {key: name for key, (_, name) in found.items()}


# -- SQLite ------------------------------------------------------------------------------------


class PagedExport:
    """An SQLite file, read from its pages."""

    def __init__(self, file: PageFile) -> None:
        self._file = file
        self._names = plain_names(file.tables)

    @property
    def lost(self) -> int:
        """Pages and rows that are not where they should be."""
        return self._file.lost_pages + self._file.lost_rows

    def columns(self, table: str) -> tuple[str, ...]:
        """See `Export`."""
        info = self._file.tables.get(self._names.get(table, ""))
        return info.columns if info else ()

    def chunks(self, table: str, ints: Sequence[str], texts: Sequence[str] = ()) -> Iterator[Chunk]:
        """See `Export`."""
        return self._file.read(self._names.get(table, ""), ints, texts)


class RowsExport:
    """An SQLite file of a kind that only SQLite itself reads, a row at a time."""

    def __init__(self, path: Path) -> None:
        self.lost = 0
        uri = f"{path.absolute().as_uri()}?mode=ro"
        self._con = sqlite3.connect(uri, uri=True, check_same_thread=False)  # see large_chunks
        self._con.text_factory = bytes
        query = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view')"
        self._names = plain_names(n.decode("utf-8", "replace") for (n,) in self._con.execute(query))

    def columns(self, table: str) -> tuple[str, ...]:
        """See `Export`."""
        if table not in self._names:
            return ()
        stored = _quoted(self._names[table])
        try:
            found = self._con.execute(f"PRAGMA table_info({stored})").fetchall()
        except (sqlite3.Error, *_DAMAGE):
            return ()
        return tuple(row[1].decode("utf-8", "replace") for row in found)

    def chunks(self, table: str, ints: Sequence[str], texts: Sequence[str] = ()) -> Iterator[Chunk]:
        """See `Export`."""
        present = self.columns(table)
        if not present:
            return
        names = [_quoted(name) if name in present else "NULL" for name in (*ints, *texts)]
        try:
            stored = _quoted(self._names[table])
            cursor = self._con.execute(f"SELECT {', '.join(names)} FROM {stored}")
            while rows := list(islice(cursor, ROWS_AT_ONCE)):
                columns = list(zip(*rows, strict=True))
                yield Chunk(
                    len(rows),
                    {name: _integers(columns[n]) for n, name in enumerate(ints)},
                    {name: _binaries(columns[len(ints) + n]) for n, name in enumerate(texts)},
                )
        except (sqlite3.Error, *_DAMAGE):
            self.lost += 1


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _integers(values: Sequence[Any]) -> Ints:
    return np.fromiter(map(_integer, values), np.int64, len(values))


def _integer(value: Any) -> int:
    """A whole number, though a program between has made a float or a text of it."""
    if type(value) is int:
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        return int(value)
    if isinstance(value, bytes) and len(value) < 19 and value.isdigit():
        return int(value)
    return NULL


def _binaries(values: Sequence[Any]) -> pa.Array:
    return pa.array([v if isinstance(v, bytes) else None for v in values], pa.large_binary())


@contextlib.contextmanager
def open_sqlite(path: Path) -> Iterator[Export]:
    """An SQLite export, gzipped or not; a torn one is read as far as it goes.

    Raises:
        ExportError: it is none.
        OSError: it cannot be read.
    """
    with contextlib.ExitStack() as stack:
        stored = stack.enter_context(path.open("rb"))
        if stored.read(2) == b"\x1f\x8b":
            unpacked = stack.enter_context(tempfile.NamedTemporaryFile(prefix="harness-"))
            _inflate(path, unpacked)
            path, stored = Path(unpacked.name), stack.enter_context(Path(unpacked.name).open("rb"))
        yield _export_of(path, stored)


def _export_of(path: Path, stream: Any) -> Export:
    try:
        mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError:  # it is empty
        raise ExportError("it is empty") from None
    try:
        return PagedExport(PageFile(mapped))
    except NotReadable as error:
        if mapped[: len(MAGIC)] != MAGIC:
            raise ExportError(str(error)) from None
    try:
        return RowsExport(path)
    except (sqlite3.Error, *_DAMAGE) as error:
        raise ExportError(f"SQLite cannot read it: {error}") from None


def _inflate(path: Path, stream: Any) -> None:
    """Decompress into `stream`: what stands before a tear, and no bomb."""
    most = min(_MOST_INFLATED, _LARGEST_SMALL + _MOST_RATIO * path.stat().st_size // 10)
    with gzip.open(path) as packed, contextlib.suppress(EOFError, zlib.error, gzip.BadGzipFile):
        while part := packed.read(1 << 20):
            stream.write(part)
            if stream.tell() > most:
                raise ExportError("it unpacks to more than any export does")
    stream.flush()


# -- folders of Parquet or Arrow files ---------------------------------------------------------


class FolderExport:
    """A folder of Parquet or Arrow files, one a table."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.lost = 0
        stored = {path.stem: path for path in files}
        self._files = {key: stored[name] for key, name in plain_names(stored).items()}

    def columns(self, table: str) -> tuple[str, ...]:
        """See `Export`."""
        path = self._files.get(table)
        if path is None:
            return ()
        try:
            with _batches(path) as (names, _):
                return names
        except _DAMAGE:
            return ()

    def chunks(self, table: str, ints: Sequence[str], texts: Sequence[str] = ()) -> Iterator[Chunk]:
        """See `Export`."""
        path = self._files.get(table)
        if path is None:
            return
        try:
            with _batches(path, (*ints, *texts)) as (_, batches):
                for batch in batches:
                    yield Chunk(
                        batch.num_rows,
                        {name: _int_column(batch, name) for name in ints},
                        {name: _text_column(batch, name) for name in texts},
                    )
        except _DAMAGE:
            self.lost += 1


@contextlib.contextmanager
def _batches(
    path: Path, wanted: Sequence[str] = ()
) -> Iterator[tuple[tuple[str, ...], Iterator[pa.RecordBatch]]]:
    """Names of a file's columns, and its rows."""
    import pyarrow.parquet as pq

    if path.suffix == ".parquet":
        with pq.ParquetFile(path) as file:
            names = tuple(file.schema_arrow.names)
            present = [name for name in wanted if name in names] or list(names[:1])
            yield names, file.iter_batches(ROWS_AT_ONCE, columns=present)
        return
    with pa.memory_map(str(path)) as source:
        if source.read(len(_ARROW_FILE)) == _ARROW_FILE:
            with pa.ipc.open_file(source) as file:
                batches = map(file.get_batch, range(file.num_record_batches))
                yield tuple(file.schema.names), map(_validated, batches)
            return
        source.seek(0)
        with pa.ipc.open_stream(source) as reader:
            yield tuple(reader.schema.names), map(_validated, reader)


def _validated(batch: pa.RecordBatch) -> pa.RecordBatch:
    """An Arrow file is used as it lies there: offsets are believed unless somebody looks."""
    batch.validate(full=True)
    return batch


def _int_column(batch: pa.RecordBatch, name: str) -> Ints:
    column = _column(batch, name)
    if column is not None and pa.types.is_floating(column.type):
        return _integers(column.to_pylist())
    if column is None or not pa.types.is_integer(column.type):
        return np.full(batch.num_rows, NULL)
    values: Ints = (
        column.cast(pa.int64(), safe=False).fill_null(NULL).to_numpy(zero_copy_only=False)
    )
    return values


def _text_column(batch: pa.RecordBatch, name: str) -> pa.Array:
    column = _column(batch, name)
    kinds = (pa.string(), pa.large_string(), pa.binary(), pa.large_binary())
    if column is None or column.type not in kinds:
        return pa.nulls(batch.num_rows, pa.large_binary())
    return column.cast(pa.binary()).cast(pa.large_binary())


def _column(batch: pa.RecordBatch, name: str) -> pa.Array | None:
    if batch.schema.names.count(name) != 1:
        return None
    column = batch.column(name)
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
