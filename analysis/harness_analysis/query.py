"""SQL over one database, or over several as one."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness_analysis.can_answer import not_answered
from harness_analysis.store import open_file
from harness_schemas.errors import UsageError
from harness_schemas.tables import quoted

if TYPE_CHECKING:
    import duckdb

MOST_ATTACHED = 16
"""Files that are open at once. Of more, what a query names is copied from one after the other."""


@dataclass(frozen=True)
class Result:
    """Column names and rows as Python values; NULL is None."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


@dataclass(frozen=True)
class Answer:
    """What a query returned, a result a statement that asks, in their order.

    `unanswered`: a line for each group of columns that the query names and nothing was recorded of.
    """

    results: tuple[Result, ...]
    unanswered: tuple[str, ...] = ()


def query_runs(paths: Sequence[Path], sql: str) -> Answer:
    """Results of `sql`, one or several statements, over the databases.

    Raises:
        UsageError: the SQL is wrong, or says nothing.
        EvidenceError: a file is no database.
    """
    import duckdb

    # The table of what can be answered is asked too, whatever the query names.
    with open_runs(paths, f"{sql} -- can_answer") as con:
        try:
            return Answer(_results(con, sql), tuple(not_answered(con, sql)))
        except duckdb.Error as error:
            raise UsageError(
                f"the query failed: {_tidy(error)}", "`harness schema` lists tables and columns"
            ) from None


def _results(con: duckdb.DuckDBPyConnection, sql: str) -> tuple[Result, ...]:
    """Every statement's; of those that only prepare (SET, CREATE) none unless nothing asks."""
    import duckdb

    asked: list[Result] = []
    prepared: list[Result] = []
    for statement in con.extract_statements(sql):
        asks = statement.expected_result_type == [duckdb.ExpectedResultType.QUERY_RESULT]
        pivots = statement.type == duckdb.StatementType.MULTI
        con.execute(statement)
        columns = tuple(column[0] for column in con.description or ())
        (asked if asks or pivots else prepared).append(Result(columns, con.fetchall()))
    if not asked and not prepared:
        raise UsageError("the query says nothing")
    return tuple(asked or prepared[-1:])


@contextlib.contextmanager
def open_runs(paths: Sequence[Path], sql: str | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """One connection over all databases: with several, names mean the union of their rows.

    `sql`: what will be asked; only tables and views whose names occur in it are there, without
    it all. With more than `MOST_ATTACHED` databases their rows are copied to the connection's own
    memory, which spills to TMPDIR.
    """
    if len(paths) == 1:
        with open_file(paths[0]) as con:
            yield con
        return
    import duckdb

    with (
        tempfile.TemporaryDirectory(prefix="harness-", ignore_cleanup_errors=True) as folder,
        contextlib.closing(duckdb.connect()) as con,
    ):
        con.execute("SET autoinstall_known_extensions = false")
        con.execute("SET autoload_known_extensions = false")
        con.execute(f"SET temp_directory = {quoted(folder)}")
        words = None if sql is None else frozenset(re.findall(r"\w+", sql.lower()))
        gather = _unite if len(paths) <= MOST_ATTACHED else _copy
        gather(con, paths, Path(folder), words)
        yield con


Words = frozenset[str] | None


def _unite(
    con: duckdb.DuckDBPyConnection, paths: Sequence[Path], folder: Path, words: Words
) -> None:
    """All files attached, and a view over all of them for every name."""
    holders: dict[str, list[str]] = {}
    for index, path in enumerate(paths):
        alias = f"r{index}"
        _attach(con, path, alias, folder)
        for name in _relations(con, alias, words):
            holders.setdefault(name, []).append(f"FROM {alias}.main.{name}")
    for name, selects in holders.items():
        con.execute(f"CREATE VIEW {name} AS {' UNION ALL BY NAME '.join(selects)}")


def _copy(
    con: duckdb.DuckDBPyConnection, paths: Sequence[Path], folder: Path, words: Words
) -> None:
    """One file open at a time; the rows of every name are gathered in a table."""
    here: dict[str, dict[str, str]] = {}
    for index, path in enumerate(paths):
        alias = f"r{index}"
        copied = _attach(con, path, alias, folder)
        for name in _relations(con, alias, words):
            columns = _columns(con, alias, name)
            if name not in here:
                con.execute(f"CREATE TABLE {name} AS FROM {alias}.main.{name} LIMIT 0")
            for column in columns.keys() - here.setdefault(name, columns).keys():
                con.execute(f"ALTER TABLE {name} ADD COLUMN {column} {columns[column]}")
                here[name] = {**here[name], column: columns[column]}
            con.execute(f"INSERT INTO {name} BY NAME FROM {alias}.main.{name}")
        con.execute(f"DETACH {alias}")
        if copied is not None:
            copied.unlink()


def _attach(con: duckdb.DuckDBPyConnection, path: Path, alias: str, folder: Path) -> Path | None:
    """Attach a file; where it cannot be locked, a copy of it, whose path is returned.

    Raises:
        UsageError, EvidenceError: what `open_file` says of such a file.
    """
    import duckdb

    try:
        con.execute(f"ATTACH {quoted(path)} AS {alias} (READ_ONLY)")
    except duckdb.Error:
        with open_file(path):  # a clear message for what is no database
            pass
        copied = Path(shutil.copy2(path, folder / f"{alias}.duckdb"))
        con.execute(f"ATTACH {quoted(copied)} AS {alias} (READ_ONLY)")
        return copied
    return None


def _relations(con: duckdb.DuckDBPyConnection, alias: str, words: Words) -> list[str]:
    """Tables and views of a database; with `words` those that they name."""
    rows = con.execute(
        """
        SELECT table_name FROM information_schema.tables
        WHERE table_catalog = ? AND table_schema = 'main' ORDER BY table_name
        """,
        [alias],
    ).fetchall()
    return [str(row[0]) for row in rows if words is None or str(row[0]).lower() in words]


def _columns(con: duckdb.DuckDBPyConnection, alias: str, name: str) -> dict[str, str]:
    """Types by column; files of different versions of the harness do not have the same ones."""
    rows = con.execute(
        """
        SELECT column_name, data_type FROM duckdb_columns()
        WHERE database_name = ? AND table_name = ? ORDER BY column_index
        """,
        [alias, name],
    ).fetchall()
    return dict(rows)


def _tidy(error: Exception) -> str:
    """DuckDB's message in a line, without the mark below the place in the query."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" ^")]
    return " ".join(lines[:3]) if lines else type(error).__name__
