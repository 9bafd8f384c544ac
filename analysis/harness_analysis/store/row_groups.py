"""Rows on their way into a table, handed on in the groups that DuckDB stores together.

A thread that inserts less than a whole group leaves it to be compressed a second time, and a
statement costs as much as a thousand rows: so small batches wait for each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import pyarrow

GROUP_ROWS: Final = 61_440
"""Rows of a row group: half of DuckDB's usual, so that the 100,000 spans of a short trace are
written and read by two threads."""


FEW_ROWS: Final = 8192
"""Rows from which on a statement costs little beside them."""


class SmallBatches:
    """Rows of one table that wait for each other until they are worth a statement: evidence of
    thousands of files comes in thousands of batches."""

    def __init__(self) -> None:
        self._waiting: list[pyarrow.Table] = []
        self._rows = 0

    def add(self, rows: pyarrow.Table) -> Iterator[pyarrow.Table]:
        """Take rows; what waits is handed on together when it is enough, or does not fit these."""
        if not _fits(self._waiting, rows):
            yield from self.rest()
        self._waiting.append(rows)
        self._rows += rows.num_rows
        if self._rows >= FEW_ROWS:
            yield from self.rest()

    def rest(self) -> Iterator[pyarrow.Table]:
        """Hand on what waits."""
        waiting, self._waiting, self._rows = self._waiting, [], 0
        if waiting:
            yield waiting[0] if len(waiting) == 1 else _joined(waiting)


class RowGroups:
    """Rows of one table that wait until `at_once` groups are full: one for each thread."""

    def __init__(self, at_once: int) -> None:
        self._most = at_once * GROUP_ROWS
        self._waiting: list[pyarrow.Table] = []
        self._rows = 0

    def add(self, rows: pyarrow.Table) -> Iterator[pyarrow.Table]:
        """Take rows; what is full is handed on, each group in one piece.

        A column may be plain text in one batch and coded in another: those do not mix, and what
        waits is handed on before.
        """
        if not _fits(self._waiting, rows):
            yield from self.rest()
        self._waiting.append(rows)
        self._rows += rows.num_rows
        while self._rows >= self._most:
            found = _joined(self._waiting)
            yield _in_groups(found.slice(0, self._most))
            self._waiting = [found.slice(self._most)]
            self._rows -= self._most

    def rest(self) -> Iterator[pyarrow.Table]:
        """Hand on what waits."""
        if self._rows:
            yield _in_groups(_joined(self._waiting))
        self._waiting, self._rows = [], 0


def _fits(waiting: list[pyarrow.Table], rows: pyarrow.Table) -> bool:
    if not waiting:
        return True
    known = {field.name: field.type for field in waiting[-1].schema}
    return all(known.get(field.name, field.type) == field.type for field in rows.schema)


def _joined(tables: list[pyarrow.Table]) -> pyarrow.Table:
    """One table of several; a column that one lacks is NULL there."""
    import pyarrow as pa

    return pa.concat_tables(tables, promote_options="default")


def _in_groups(rows: pyarrow.Table) -> pyarrow.Table:
    import pyarrow as pa

    starts = range(0, rows.num_rows, GROUP_ROWS)
    try:
        groups = [rows.slice(at, GROUP_ROWS).combine_chunks() for at in starts]
    except pa.ArrowInvalid:  # dictionaries that Arrow cannot join, as those that hold a NULL
        plain = rows.cast(pa.schema([_plain(field) for field in rows.schema]))
        groups = [plain.slice(at, GROUP_ROWS).combine_chunks() for at in starts]
    return pa.concat_tables(groups)


def _plain(field: pyarrow.Field) -> pyarrow.Field:
    import pyarrow as pa

    coded = pa.types.is_dictionary(field.type)
    return field.with_type(field.type.value_type) if coded else field
