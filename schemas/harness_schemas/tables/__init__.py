"""The tables of a run's database, declared once: DDL, Arrow schemas and documentation follow.

Types are DuckDB's. Every time is an integer number of nanoseconds since the Unix epoch on the
run's aligned axis unless its name says `raw`. NULL is "unknown"; zero is a measurement.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness_schemas.tables.columns import (
    BIGINT,
    BOOLEAN,
    DOUBLE,
    INTEGER,
    KEYS,
    RANK,
    RUN,
    VARCHAR,
    Column,
    Table,
    quoted,
)
from harness_schemas.tables.derived import DERIVED_TABLES
from harness_schemas.tables.evidence import EVIDENCE_TABLES
from harness_schemas.tables.run import RUN_TABLES

if TYPE_CHECKING:
    import pyarrow

__all__ = [
    "BY_NAME",
    "KEYS",
    "RANK",
    "RUN",
    "TABLES",
    "Column",
    "Table",
    "arrow_schema",
    "ddl",
    "quoted",
]

TABLES: tuple[Table, ...] = (*RUN_TABLES, *EVIDENCE_TABLES, *DERIVED_TABLES)
BY_NAME: dict[str, Table] = {table.name: table for table in TABLES}


def ddl(table: Table) -> str:
    """CREATE TABLE and the COMMENT statements of a table."""
    body = ",\n  ".join(f"{column.name} {column.type}" for column in table.columns)
    lines = [f"CREATE TABLE {table.name} (\n  {body}\n);"]
    lines.append(f"COMMENT ON TABLE {table.name} IS {quoted(table.doc)};")
    lines += [
        f"COMMENT ON COLUMN {table.name}.{column.name} IS {quoted(column.doc)};"
        for column in table.columns
    ]
    return "\n".join(lines)


def arrow_schema(table: Table) -> pyarrow.Schema:
    """The Arrow schema that batches for this table have."""
    import pyarrow as pa

    types: dict[str, Any] = {
        BIGINT: pa.int64(),
        INTEGER: pa.int32(),
        DOUBLE: pa.float64(),
        VARCHAR: pa.string(),
        BOOLEAN: pa.bool_(),
    }
    return pa.schema([(column.name, types[column.type]) for column in table.columns])
