"""Runs in notebooks and scripts: `harness.open_run("latest").sql("FROM stragglers").pandas()`."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.runs import find_databases

SHOWN_ROWS = 50
"""Rows that a notebook shows; all of them are there."""


@dataclass(frozen=True)
class Rows:
    """What a query found, read whole. Iterating gives tuples; NULL is None."""

    table: Any
    """A `pyarrow.Table`."""

    @property
    def columns(self) -> list[str]:
        """Column names."""
        return list(self.table.column_names)

    def arrow(self) -> Any:
        """As a `pyarrow.Table`."""
        return self.table

    def pandas(self) -> Any:
        """As a `pandas.DataFrame`; integers with NULL stay integers.

        Raises:
            ImportError: pandas is not installed.
        """
        import pandas  # type: ignore[import-untyped]

        kinds = {f"int{n}": getattr(pandas, f"Int{n}Dtype")() for n in (8, 16, 32, 64)}
        return self.table.to_pandas(types_mapper=lambda kind: kinds.get(str(kind)))

    def rows(self) -> list[dict[str, Any]]:
        """As a list of dictionaries."""
        found: list[dict[str, Any]] = self.table.to_pylist()
        return found

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        columns = [column.to_pylist() for column in self.table.columns]
        return zip(*columns, strict=True)

    def __repr__(self) -> str:
        more = len(self) - SHOWN_ROWS
        shown = Rows(self.table.slice(0, SHOWN_ROWS))
        text = _aligned([self.columns, *([_cell(value) for value in row] for row in shown)])
        return text + (f"\n... {more:,} more rows" if more > 0 else "")

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(repr(self))}</pre>"


def _cell(value: Any) -> str:
    """A value as people read it; NULL is `-`."""
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


class Run:
    """One run's database, or several as one, opened read-only. A context manager."""

    def __init__(self, paths: Sequence[Path]) -> None:
        from harness_analysis.query import open_runs

        self.paths = tuple(paths)
        self._stack = ExitStack()
        self.con = self._stack.enter_context(open_runs(self.paths))

    def sql(self, query: str, parameters: object = None) -> Rows:
        """Rows of a query; `parameters` for its `?` or `$name`.

        Of several statements those of the last one; none where it only prepares (SET, CREATE).

        Raises:
            UsageError: the SQL is wrong.
        """
        import duckdb
        import pyarrow

        from harness_schemas.errors import UsageError

        try:
            found = self.con.sql(query, params=parameters)
            return Rows(pyarrow.table({}) if found is None else found.to_arrow_table())
        except duckdb.Error as error:
            reason = " ".join(str(error).split("\n")[:3]).strip()
            raise UsageError(
                f"the query failed: {reason}", "`harness schema` lists tables and columns"
            ) from None

    def close(self) -> None:
        """Close the database."""
        self._stack.close()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Run({', '.join(map(str, self.paths))})"


def open_runs(names: Sequence[str | Path]) -> Run:
    """Open runs by folder, database file, id, Slurm job id, wildcard or `latest`.

    Raises:
        UsageError: no such run, or it has no database yet.
        EvidenceError: a file is no database.
    """
    return Run(find_databases([str(name) for name in names]))
