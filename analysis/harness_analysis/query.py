"""SQL over one database, or over several as one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness_analysis.store import open_database
from harness_schemas.errors import UsageError

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True)
class Result:
    """Column names and rows as Python values; NULL is None."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


def query_runs(paths: Sequence[Path], sql: str) -> Result:
    """Rows of `sql` over the databases.

    Raises:
        UsageError: the SQL is wrong.
        EvidenceError: a file is no database.
    """
    import duckdb

    with open_runs(paths) as con:
        try:
            con.execute(sql)
            columns = tuple(column[0] for column in con.description or ())
            return Result(columns, con.fetchall())
        except duckdb.Error as error:
            raise UsageError(
                f"the query failed: {_tidy(error)}", "`harness schema` lists tables and columns"
            ) from None


@contextlib.contextmanager
def open_runs(paths: Sequence[Path]) -> Iterator[duckdb.DuckDBPyConnection]:
    """One connection over all databases: with several, names mean the union of their rows."""
    if len(paths) == 1:
        with open_database(paths[0]) as con:
            yield con
        return
    import duckdb

    con = duckdb.connect()
    try:
        con.execute("SET autoinstall_known_extensions = false")
        con.execute("SET autoload_known_extensions = false")
        holders: dict[str, list[str]] = {}
        for index, path in enumerate(paths):
            alias = f"r{index}"
            _attach(con, path, alias)
            for name in _relations(con, alias):
                holders.setdefault(name, []).append(f"FROM {alias}.main.{name}")
        for name, selects in holders.items():
            con.execute(f"CREATE VIEW {name} AS {' UNION ALL BY NAME '.join(selects)}")
        yield con
    finally:
        con.close()


def _attach(con: duckdb.DuckDBPyConnection, path: Path, alias: str) -> None:
    with open_database(path):  # a clear message for what is no database
        pass
    quoted = str(path).replace("'", "''")
    con.execute(f"ATTACH '{quoted}' AS {alias} (READ_ONLY)")


def _relations(con: duckdb.DuckDBPyConnection, alias: str) -> list[str]:
    rows = con.execute(
        """
        SELECT table_name FROM information_schema.tables
        WHERE table_catalog = ? AND table_schema = 'main' ORDER BY table_name
        """,
        [alias],
    ).fetchall()
    return [str(row[0]) for row in rows]


def _tidy(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:3]) if lines else type(error).__name__
