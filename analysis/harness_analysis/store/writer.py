"""The DuckDB file, written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness_analysis.clocks.axis import (
    CLOCK_FACTS,
    FACTS,
    TIMES,
    Axis,
    aligned_select,
    clock_select,
)
from harness_analysis.store.blank import attach_blank
from harness_analysis.store.masking import masked
from harness_analysis.store.memory import (
    build_memory,
    is_of_disk,
    loading_memory,
    more_memory,
    needed_memory,
)
from harness_analysis.store.row_groups import RowGroups, SmallBatches
from harness_schemas.errors import HarnessError, said_by
from harness_schemas.tables import BY_NAME, Table, arrow_schema, quoted

if TYPE_CHECKING:
    import duckdb
    import pyarrow

    from harness_analysis.build.parquet import ParquetSet

SQL = Path(__file__).parents[1] / "sql"
STAGED = {"collectives": "collective_parts", "ranks": "rank_parts"}
"""Tables whose rows are completed by a later step, and where they wait."""
NAMELESS = ("torch_profiler", "nsys", "nccl_inspector")
"""Evidence of kernels: which calls they are, and their ordinals and clocks, is found out later."""
GROUPED = ("spans",)
"""Tables of many rows, which are inserted in whole row groups."""


class Writer:
    """Builds one database under a temporary name; `finish` gives it its own.

    Usage: `with Writer(path, run_id) as writer: writer.add(...); ...; writer.finish()`.
    What exceeds memory (harness_analysis.store.memory) spills to `<path>.tmp.spill`.
    Leaving without `finish` removes what was built.
    """

    def __init__(self, path: Path, run_id: str) -> None:
        self.path = path
        self.run_id = run_id
        self.axis = Axis()
        self.completes_calls = True
        """Whether rows of collectives may be changed before they are matched; else they are read
        where they lie."""
        self._groups: dict[str, RowGroups | SmallBatches] = {}
        self._clocks_set = True
        self._limit = build_memory()
        self._temporary = path.with_name(path.name + ".tmp")
        self._spill = path.with_name(path.name + ".tmp.spill")
        self.con = self._connect()

    def _connect(self) -> duckdb.DuckDBPyConnection:
        import duckdb

        self._remove()
        con = duckdb.connect()
        try:
            con.execute(f"SET memory_limit = {quoted(self._limit)}")
            con.execute(f"SET threads = {_threads()}")
            con.execute("SET preserve_insertion_order = false")
            con.execute(f"SET temp_directory = {quoted(self._spill)}")
            attach_blank(con, self._temporary)
            con.execute("USE run")
            for table_name, temporary in STAGED.items():
                con.execute(f"CREATE TEMP TABLE {temporary} AS FROM run.{table_name} LIMIT 0")
            self._set_clocks(con)
        except (duckdb.Error, OSError) as error:
            con.close()
            self._remove()
            if isinstance(error, duckdb.OutOfMemoryException):
                raise  # what that means is said once, for the whole build
            raise HarnessError(
                f"cannot write {self.path}: {said_by(error)}",
                "choose another place with --output",
            ) from None
        return con

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.con.close()
        self._remove()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Rows added inside are committed together: row groups are filled across batches, which
        halves the time and the file."""
        self._limit_memory(loading_memory(_threads()))
        self.con.execute("BEGIN")
        self._groups = {name: SmallBatches() for name in BY_NAME}
        self._groups |= {name: RowGroups(_threads()) for name in GROUPED}
        yield
        for name, groups in self._groups.items():
            for rows in groups.rest():
                self._insert(name, rows)
        self._groups = {}
        self.con.execute("COMMIT")
        (calls,) = self.con.execute("SELECT count(*) FROM collective_parts").fetchone() or (0,)
        self._limit_memory(build_memory(most=needed_memory(calls, _threads())))

    def _limit_memory(self, limit: str) -> None:
        self._limit = limit
        self.con.execute(f"SET memory_limit = {quoted(limit)}")

    def add(self, table_name: str, data: pyarrow.Table) -> None:
        """Append rows; columns that `data` lacks become NULL, `run_id` is filled in.

        Times are mapped to the run's axis on the way. Rows of `STAGED` tables wait in a
        temporary table for the step that completes them.

        Raises:
            ValueError: a column that the table does not have.
        """
        table = BY_NAME[table_name]
        unknown = set(data.column_names) - set(table.column_names())
        if unknown:
            raise ValueError(f"{table_name} has no column {sorted(unknown)}")
        if data.num_rows == 0:
            return
        rows = masked(_cast(table, data))
        if table_name in TIMES:
            # Those that the rows need are fixed now, whoever waits.
            self._clocks_set = not self.axis.refresh() and self._clocks_set
        elif table_name == "clock_anchors":
            self.axis.add_anchors(data.to_pylist())
        elif table_name == "clock_pingpongs":
            self.axis.add_pingpongs(data.to_pylist())
        groups = self._groups.get(table_name)
        for whole in groups.add(rows) if groups else (rows,):
            self._insert(table_name, whole)

    def _insert(self, table_name: str, batch: pyarrow.Table) -> None:
        """`batch` is what DuckDB finds by its name."""
        names = [name for name in batch.column_names if name != "run_id"]
        select = f"SELECT {', '.join(names)} FROM batch"
        if table_name in TIMES:
            self.refresh_clocks()
            select = aligned_select(table_name, names)
        target = STAGED.get(table_name, f"run.{table_name}")
        self.con.execute(
            f"INSERT INTO {target} (run_id, {', '.join(names)}) "
            f"SELECT {quoted(self.run_id)}, * FROM ({select})"
        )

    def add_all(self, table_name: str, tables: Iterable[pyarrow.Table]) -> None:
        """Append the rows of several tables at once: each insertion is a transaction."""
        import pyarrow as pa

        found = list(tables)
        if found:
            self.add(table_name, pa.concat_tables(found, promote_options="default"))

    def add_rows(self, table_name: str, rows: list[dict[str, Any]]) -> None:
        """Append a few rows given as dictionaries."""
        import pyarrow as pa

        if rows:
            schema = arrow_schema(BY_NAME[table_name])
            present = [field for field in schema if any(field.name in row for row in rows)]
            self.add(table_name, pa.Table.from_pylist(rows, schema=pa.schema(present)))

    def refresh_clocks(self) -> None:
        """Map the clocks that are new since the last time."""
        if self.axis.refresh() or not self._clocks_set:
            self._clocks_set = True
            self._set_clocks(self.con)

    def add_stored(self, stored: ParquetSet) -> None:
        """Take the large tables of a Parquet set: spans as a view, collectives as rows that wait
        for their matching, or as a view where they are complete. Every clock is known by now, and
        in `clock_offsets`."""
        self._limit_memory(build_memory())
        if stored.has("spans"):
            self.con.execute("DROP TABLE run.spans")
            self.con.execute(f"SET file_search_path = {quoted(self.path.resolve().parent)}")
            self.con.execute(stored.view(BY_NAME["spans"], self.path))
        if stored.has("collectives"):
            table = BY_NAME["collectives"]
            scan, staged = stored.scan(table.name), STAGED[table.name]
            select = aligned_select(table.name, table.column_names(), scan)
            unnamed = f"FROM {scan} WHERE source IN {NAMELESS} OR comm_group LIKE 'nccl:%'"
            self.completes_calls = bool(self.con.execute(f"{unnamed} LIMIT 1").fetchall())
            if self.completes_calls:
                self.con.execute(f"INSERT INTO {staged} {select}")
            else:
                self.con.execute(f"DROP TABLE {staged}")
                self.con.execute(f"CREATE TEMP VIEW {staged} AS {select}")

    def _set_clocks(self, con: duckdb.DuckDBPyConnection) -> None:
        import pyarrow as pa

        if not self.axis.rows():
            for name, keys in (
                ("rank_clock", "source, timeline, rank"),
                ("host_clock", "source, host"),
            ):
                con.execute(
                    f"CREATE OR REPLACE TEMP TABLE {name} AS SELECT {keys}, {', '.join(FACTS)} "
                    "FROM run.clock_offsets LIMIT 0"
                )
            return
        clock_map = pa.Table.from_pylist(  # noqa: F841 - DuckDB finds it by its name
            self.axis.rows(), schema=arrow_schema(BY_NAME["clock_offsets"])
        )
        con.execute(f"CREATE OR REPLACE TEMP TABLE rank_clock AS {clock_select('clock_map')}")
        con.execute(
            f"""
            CREATE OR REPLACE TEMP TABLE host_clock AS
            SELECT source, host, {CLOCK_FACTS} FROM clock_map
            WHERE host IS NOT NULL AND timeline IS DISTINCT FROM 'device' GROUP BY source, host
            """
        )

    def script(self, name: str) -> None:
        """Run the statements of `sql/build/<name>.sql`, with more memory where that is free and
        one of them needs it."""
        for statement in self.con.extract_statements((SQL / "build" / f"{name}.sql").read_text()):
            self._run(statement)

    def _run(self, statement: duckdb.Statement) -> None:
        import duckdb

        while True:
            try:
                self.con.execute(statement)
                return
            except duckdb.OutOfMemoryException as error:
                more = None if is_of_disk(error) else more_memory(self._limit)
                if more is None:
                    raise
                self._limit_memory(more)

    def finish(self) -> None:
        """Close the file and give it its final name."""
        self.con.execute("USE memory")
        self.con.execute("DETACH run")
        self.con.close()
        try:
            self._temporary.replace(self.path)
        except OSError as error:
            raise HarnessError(f"cannot write {self.path}: {error.strerror}") from None

    def _remove(self) -> None:
        for name in (self._temporary.name, self._temporary.name + ".wal"):
            with contextlib.suppress(OSError):
                self._temporary.with_name(name).unlink()
        shutil.rmtree(self._spill, ignore_errors=True)


def _threads() -> int:
    return min(os.cpu_count() or 1, 4)


def _cast(table: Table, data: pyarrow.Table) -> pyarrow.Table:
    """The batch in the table's types; dictionaries of strings are left as they are."""
    import pyarrow as pa

    wanted = arrow_schema(table)
    fields = [
        field if pa.types.is_dictionary(field.type) else wanted.field(field.name)
        for field in data.schema
    ]
    return data.cast(pa.schema(fields))
