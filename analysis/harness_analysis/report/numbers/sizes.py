"""Collectives by message size: how long they look, how long data moved, and the measured floor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness_analysis.report.numbers.units import HEADLINE
from harness_analysis.report.numbers.waiting import best_source

if TYPE_CHECKING:
    import duckdb

MOST_POINTS = 1500
MEASURED = "phase IN ('prefill', 'decode', 'mixed')"


@dataclass(frozen=True)
class Call:
    """One collective: its longest duration on a rank, and the part that moved data."""

    op: str
    num_bytes: int
    duration_ns: int
    transfer_ns: int


@dataclass(frozen=True)
class SizeRow:
    """Calls of one operation, size and group size: percentiles in nanoseconds."""

    op: str
    num_bytes: int
    group_size: int
    calls: int
    duration_p50_ns: float
    transfer_p10_ns: float
    transfer_p50_ns: float
    transfer_p90_ns: float
    floor_ns: float | None


@dataclass(frozen=True)
class Floor:
    """Measured floors of one operation and implementation, by size."""

    op: str
    implementation: str
    group_size: int
    sizes: tuple[int, ...]
    p50_ns: tuple[float, ...]


@dataclass(frozen=True)
class Sizes:
    """Collectives whose waiting is known, by one evidence; `points` is every n-th of `calls`."""

    source: str
    headline: bool
    calls: int
    points: tuple[Call, ...]
    rows: tuple[SizeRow, ...]
    floors: tuple[Floor, ...]


def load_sizes(con: duckdb.DuckDBPyConnection) -> Sizes | None:
    """None where no collective's size and transfer are known."""
    found = best_source(con, "op NOT IN ('send', 'recv') AND bytes > 0")
    if found is None:
        return None
    source, headline = found
    kept = f"source = $source AND {MEASURED} AND {HEADLINE if headline else 'true'}"
    kept += " AND bytes > 0 AND transfer_ns > 0 AND op IS NOT NULL"
    rows = con.execute(
        f"""
        SELECT op, bytes, group_size, count(*), median(transfer_ns + coalesce(max_wait_ns, 0)),
          quantile_cont(transfer_ns, 0.1), median(transfer_ns), quantile_cont(transfer_ns, 0.9),
          median(floor_ns)
        FROM collective_instances WHERE {kept} GROUP BY op, bytes, group_size
        ORDER BY op, group_size, bytes
        """,
        {"source": source},
    ).fetchall()
    if not rows:
        return None
    calls = sum(row[3] for row in rows)
    points = con.execute(
        f"""
        SELECT op, bytes, transfer_ns + coalesce(max_wait_ns, 0), transfer_ns FROM (
          SELECT *, row_number() OVER (ORDER BY op, bytes, start_ns, comm_group, seq) AS place
          FROM collective_instances WHERE {kept})
        WHERE place % {1 + (calls - 1) // MOST_POINTS} = 0 ORDER BY place
        """,
        {"source": source},
    ).fetchall()
    sizes = tuple(SizeRow(*row) for row in rows)
    return Sizes(
        source, headline, calls, tuple(Call(*row) for row in points), sizes, _floors(con, sizes)
    )


def _floors(con: duckdb.DuckDBPyConnection, sizes: tuple[SizeRow, ...]) -> tuple[Floor, ...]:
    wanted = {(row.op, row.group_size) for row in sizes}
    rows = con.execute(
        """
        SELECT op, coalesce(implementation, 'floor'), group_size, list(bytes ORDER BY bytes),
          list(p50_ns ORDER BY bytes)
        FROM (SELECT op, implementation, group_size, bytes, median(p50_ns) AS p50_ns FROM floors
          WHERE bytes > 0 AND p50_ns > 0 GROUP BY ALL)
        GROUP BY op, implementation, group_size ORDER BY op, implementation, group_size
        """
    ).fetchall()
    return tuple(
        Floor(op, implementation, size, tuple(num_bytes), tuple(p50))
        for op, implementation, size, num_bytes, p50 in rows
        if (op, size) in wanted
    )
