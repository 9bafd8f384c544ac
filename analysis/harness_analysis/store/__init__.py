"""A run's database: `writer` makes the file, whole or not at all; here it is opened read-only."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness_schemas.errors import EvidenceError, UsageError, said_by
from harness_schemas.tables import quoted

if TYPE_CHECKING:
    import duckdb


@contextlib.contextmanager
def open_database(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A read-only connection to a run's database, as `open_file` makes it.

    Raises:
        UsageError: no such file.
        EvidenceError: not a run's database, or, where that shows in what is asked of it, one of
            another version.
    """
    import duckdb

    with open_file(path) as con:
        try:
            con.execute("FROM runs LIMIT 0")
        except duckdb.CatalogException:
            raise EvidenceError(
                f"{path} is no run's database", "evidence becomes one with `harness ingest`"
            ) from None
        try:
            yield con
        except (duckdb.CatalogException, duckdb.BinderException) as error:
            raise EvidenceError(
                f"another version of the harness made the database: {said_by(error)}",
                "make it anew with `harness ingest`",
            ) from None


@contextlib.contextmanager
def open_file(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A read-only connection to any DuckDB file; extensions, which would be downloaded, are off.

    Where the file system refuses locks (some NFS and Lustre mounts) a copy in TMPDIR is read.

    Raises:
        UsageError: no such file.
        EvidenceError: not a DuckDB database.
    """
    import duckdb

    if not path.is_file():
        raise UsageError(f"{path} does not exist", "make it with `harness ingest`")
    with contextlib.ExitStack() as stack:
        try:
            con = duckdb.connect(str(path), read_only=True)
        except duckdb.IOException as error:
            if "lock" not in str(error).lower():
                raise _not_a_database(path, error) from None
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="harness-"))
            copy = Path(shutil.copy2(path, folder))
            con = duckdb.connect(str(copy), read_only=True)
        except duckdb.Error as error:
            raise _not_a_database(path, error) from None
        stack.callback(con.close)
        con.execute("SET autoinstall_known_extensions = false")
        con.execute("SET autoload_known_extensions = false")
        # Spans may be a view of Parquet files that lie beside the database.
        con.execute(f"SET file_search_path = {quoted(path.resolve().parent)}")
        yield con


def rows_of(con: duckdb.DuckDBPyConnection, sql: str, *values: Any) -> list[dict[str, Any]]:
    """Rows of a query as dictionaries; `values` for its `?`."""
    found = con.execute(sql, list(values))
    names = [column[0] for column in found.description or ()]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def require(con: duckdb.DuckDBPyConnection, *relations: str) -> None:
    """Check that the database has these tables, views or columns (`ranks.stage`).

    Raises:
        EvidenceError: it was built by an older version of the harness.
    """
    rows = con.execute("SELECT table_name, column_name FROM duckdb_columns()").fetchall()
    known = {name for table, column in rows for name in (table, f"{table}.{column}")}
    missing = [name for name in relations if name not in known]
    if missing:
        raise EvidenceError(
            f"the database has no {missing[0]}: an older version made it",
            "make it anew with `harness ingest`",
        )


def _not_a_database(path: Path, error: Exception) -> EvidenceError:
    said = said_by(error)
    if "version number" in said:
        return EvidenceError(
            f"{path} was written by a newer DuckDB than this one can read",
            "upgrade the Python package duckdb, or make it anew with `harness ingest`",
        )
    if "not a valid DuckDB database" in said:
        return EvidenceError(
            f"{path} is no DuckDB database",
            "name a run, or its run.duckdb; evidence becomes one with `harness ingest`",
        )
    return EvidenceError(
        f"{path} cannot be read as a DuckDB database: {said}", "make it anew with `harness ingest`"
    )
