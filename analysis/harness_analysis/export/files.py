"""Files that appear whole or not at all, and a workspace for large queries."""

from __future__ import annotations

import contextlib
import gzip
import io
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from harness_schemas.tables import quoted
from harness_schemas.whole_file import whole_file

if TYPE_CHECKING:
    import duckdb

MEMORY = "1GB"
"""DuckDB's share of an export; beyond it sorting spills to TMPDIR."""
GZIP_LEVEL = 3
BATCH_ROWS = 50_000


@contextlib.contextmanager
def whole_text(path: Path) -> Iterator[io.TextIOWrapper]:
    """A text file under a temporary name that is renamed at the end; gzip where it ends in .gz.

    Raises:
        HarnessError: it cannot be written.
    """
    with (
        whole_file(path, "choose another place with --output") as temporary,
        contextlib.ExitStack() as stack,
    ):
        raw = stack.enter_context(temporary.open("wb"))
        target: IO[bytes] = raw
        if path.name.endswith(".gz"):
            # Without name and time: the same run gives the same bytes.
            zipped = gzip.GzipFile("", "wb", GZIP_LEVEL, raw, mtime=0)
            target = cast("IO[bytes]", stack.enter_context(zipped))
        yield stack.enter_context(io.TextIOWrapper(target, encoding="utf-8", newline="\n"))


@contextlib.contextmanager
def bounded(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Bounds the connection's memory; what does not fit goes to TMPDIR, which is cleaned up."""
    folder = tempfile.mkdtemp(prefix="harness-export-")
    try:
        con.execute(f"SET memory_limit = '{MEMORY}'")
        con.execute(f"SET temp_directory = {quoted(folder)}")
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def text_bytes(con: duckdb.DuckDBPyConnection, sql: str) -> Iterator[bytes]:
    """The first column of a query, which must be text without NULL, as UTF-8, end to end.

    One object a batch: no row becomes a Python object.
    """
    import numpy as np

    for batch in con.sql(sql).to_arrow_reader(BATCH_ROWS):
        column = batch.column(0)
        _, places, text = column.buffers()
        if len(column) and text is not None:
            ends = np.frombuffer(places, dtype=np.int32)
            first, last = ends[column.offset], ends[column.offset + len(column)]
            yield bytes(memoryview(text)[first:last])
