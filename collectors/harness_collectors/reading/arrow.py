"""Arrow batches from plain columns, typed by the declaration of their table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness_schemas.spi import Batch
from harness_schemas.tables import BY_NAME, arrow_schema


def batch(table: str, columns: Mapping[str, Sequence[Any]]) -> Batch:
    """A batch for `table` of columns of equal length; a column may be a Python list or Arrow.

    Raises:
        KeyError: the table has no such column.
        pyarrow.ArrowInvalid: a value does not fit its column's type.
    """
    import pyarrow as pa

    declared = arrow_schema(BY_NAME[table])
    arrays = []
    for name, values in columns.items():
        kind = declared.field(name).type
        if isinstance(values, (pa.Array, pa.ChunkedArray)):
            arrays.append(values.cast(kind))
        else:
            arrays.append(pa.array(values, type=kind))
    return Batch(table, pa.table(arrays, names=list(columns)))


def row(table: str, **fields: Any) -> Batch:
    """A batch of one row."""
    return batch(table, {name: [value] for name, value in fields.items()})
