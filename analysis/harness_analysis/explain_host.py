"""What a host did, where a trace shows nothing that ran on a device: its operators by time.

Their durations are of the wall clock: whether the thread computed or was off the CPU they do not
say, so that the breakdown leaves their time unresolved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from harness_analysis.store import rows_of
from harness_schemas.units import format_ns

if TYPE_CHECKING:
    import duckdb

MOST: Final = 5
"""Operators that are told."""
_OPERATORS: Final = """SELECT * FROM spans
  WHERE timeline = 'host' AND category = 'compute' AND source = 'torch_profiler'
    AND end_ns >= start_ns AND NOT EXISTS (FROM spans WHERE timeline = 'device')
    AND NOT EXISTS (FROM spans WHERE source = 'app_timers')"""
_KEYS: Final = ("phase", "repeat", "batch", "microbatch", "step", "rank")


def operators(con: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """The outermost operators that took most of the host's time, over all ranks."""
    return rows_of(
        con,
        f"""
        SELECT name, count(*) AS calls, sum(end_ns - start_ns)::BIGINT AS total_ns,
          total_ns / sum(total_ns) OVER () AS share
        FROM ({_OPERATORS}) GROUP BY name ORDER BY total_ns DESC, name LIMIT {MOST}
        """,
    )


def grown_operators(con: duckdb.DuckDBPyConnection) -> dict[tuple[Any, ...], str]:
    """By unit and rank the operator that took most above its median over the units, in words."""
    keys = ", ".join(_KEYS)
    rows = rows_of(
        con,
        f"""
        WITH per_unit AS (
          SELECT {keys}, name, sum(end_ns - start_ns)::BIGINT AS ns FROM ({_OPERATORS})
          WHERE step IS NOT NULL GROUP BY {keys}, name
        ), against AS (
          SELECT *, ns - median(ns) OVER (PARTITION BY phase, rank, name) AS more_ns FROM per_unit)
        SELECT * FROM against
        QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY more_ns DESC, name) = 1
        """,
    )
    return {
        tuple(row[key] for key in _KEYS): f"{row['name']} took {format_ns(row['more_ns'])} longer"
        for row in rows
        if row["more_ns"] > 0
    }


def unit_of(row: dict[str, Any]) -> tuple[Any, ...]:
    """The key of a unit and of the rank that explains it."""
    return tuple(row[key] for key in _KEYS)
