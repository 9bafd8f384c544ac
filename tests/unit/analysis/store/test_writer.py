"""Batches with any subset of columns are appended; what is missing is NULL (spi.Batch)."""

import pyarrow as pa
import pytest

from harness_analysis.clocks.axis import TIMES
from harness_analysis.store.writer import STAGED, Writer
from harness_schemas.tables import BY_NAME, TABLES, arrow_schema

SAMPLES = {pa.int64(): 7, pa.int32(): 3, pa.float64(): 1.5, pa.string(): "x", pa.bool_(): True}
ANCHOR = {"source": "x", "rank": 3, "clock_domain": "d", "raw_ns": 0, "wall_ns": 1_000}


def one_row(table, names):
    schema = pa.schema([field for field in arrow_schema(BY_NAME[table]) if field.name in names])
    row = {field.name: SAMPLES[field.type] for field in schema}
    return pa.Table.from_pylist([{**row, "timeline": "host"}], schema=schema)


@pytest.mark.parametrize("lacking", ["rank", "source", "timeline", "host"])
def test_clocked_tables_take_a_batch_that_lacks_what_names_its_clock(lacking, tmp_path):
    with Writer(tmp_path / "d.duckdb", "r") as writer:
        writer.add_rows("clock_anchors", [ANCHOR])
        for table, times in TIMES.items():
            names = set(BY_NAME[table].column_names()) - {"run_id", lacking}
            writer.add(table, one_row(table, names))
            target = STAGED.get(table, table)
            found = writer.con.execute(f"SELECT {', '.join(times)} FROM {target}").fetchall()
            # Rows of other sources than `x`, or without a named clock, are on the axis already.
            assert set(*found) == ({1_007} if {"source", "rank"} <= names else {7}), table
            if lacking in BY_NAME[table].column_names():
                nulls = writer.con.execute(f"SELECT {lacking} FROM {target}").fetchall()
                assert nulls == [(None,)], table


def test_a_batch_of_any_one_column_is_taken(tmp_path):
    with Writer(tmp_path / "d.duckdb", "r") as writer:
        for table in TABLES:
            if table.name in ("clock_anchors", "clock_pingpongs"):
                continue
            for name in table.column_names()[1:]:
                writer.add(table.name, one_row(table.name, {name}))
            target = STAGED.get(table.name, table.name)
            rows = writer.con.execute(f"SELECT count(*) FROM {target}").fetchone()
            assert rows == (len(table.columns) - 1,)


def test_batches_of_thousands_of_files_are_inserted_together(tmp_path, monkeypatch):
    """Each with a clock of its own, and some with a column that others lack."""
    statements = []
    insert = Writer._insert
    monkeypatch.setattr(
        Writer, "_insert", lambda self, *given: (statements.append(given[0]), insert(self, *given))
    )
    with Writer(tmp_path / "d.duckdb", "r") as writer:
        with writer.transaction():
            for rank in range(300):
                anchor = {**ANCHOR, "rank": rank, "clock_domain": f"d{rank}", "wall_ns": rank}
                writer.add_rows("clock_anchors", [anchor])
                row = {"source": "x", "rank": rank, "enqueue_ns": 7, "op": "all_reduce"}
                writer.add_rows("collectives", [row | ({"bytes": 8} if rank % 2 else {})])
        assert statements.count("collectives") <= 3
        rows = writer.con.execute(
            "SELECT rank, enqueue_ns, bytes FROM collective_parts ORDER BY rank"
        ).fetchall()
    assert rows == [(rank, 7 + rank, 8 if rank % 2 else None) for rank in range(300)]


def test_an_unknown_column_is_refused(tmp_path):
    with Writer(tmp_path / "d.duckdb", "r") as writer, pytest.raises(ValueError, match="no column"):
        writer.add("spans", pa.table({"colour": ["red"]}))
