"""One kind of evidence about one rank: its intervals and its rows of `unit_breakdown`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from harness_analysis.build.sweep import Intervals, Times

if TYPE_CHECKING:
    import duckdb


KEYS = ("batch", "microbatch", "repeat", "phase", "step", "warmup", "perturbed_by")

ALL = "all"
"""Phase of the row that covers a rank from its first to its last activity."""


@dataclass(frozen=True)
class Evidence:
    """One kind of evidence about one rank."""

    rank: int
    source: str
    timeline: str


def communication(
    con: duckdb.DuckDBPyConnection, evidence: Evidence
) -> tuple[Intervals, Intervals, Intervals]:
    """Transfer, wait and unsplit intervals: a rank waits first, then data moves."""
    found = con.execute(
        """
        SELECT CASE WHEN wait_method = 'bounded' THEN end_ns - low_ns ELSE start_ns END AS start_ns,
          end_ns, coalesce(transfer_ns, -1) AS transfer_ns, coalesce(wait_ns, -1) AS wait_ns
        FROM collectives_here
        WHERE rank = ? AND source = ? AND timeline = ? AND end_ns IS NOT NULL
        """,
        [evidence.rank, evidence.source, evidence.timeline],
    ).fetchnumpy()
    start, end = _plain(found["start_ns"]), _plain(found["end_ns"])
    transfer, wait = _plain(found["transfer_ns"]), _plain(found["wait_ns"])
    split = wait >= 0
    # From the end backwards: where a floor split them, the start of the interval is launch.
    turn = end[split] - transfer[split]
    return (
        Intervals(turn, end[split]),
        Intervals(turn - wait[split], turn),
        Intervals(start[~split], end[~split]),
    )


def spans(con: duckdb.DuckDBPyConnection, evidence: Evidence, where: str) -> Intervals:
    """Intervals of the evidence's own timeline that meet an SQL condition."""
    return spans_at(con, evidence, evidence.timeline, where)


def spans_at(
    con: duckdb.DuckDBPyConnection, evidence: Evidence, timeline: str, where: str
) -> Intervals:
    """The same on a timeline by name."""
    found = con.execute(
        f"""
        SELECT start_ns, end_ns FROM spans_here
        WHERE rank = ? AND source = ? AND timeline = ? AND end_ns IS NOT NULL AND {where}
        """,
        [evidence.rank, evidence.source, timeline],
    ).fetchnumpy()
    return Intervals(_plain(found["start_ns"]), _plain(found["end_ns"]))


def arrow(con: duckdb.DuckDBPyConnection, sql: str, parameters: list[Any]) -> pa.Table:
    """What a query finds."""
    return con.sql(sql, params=parameters).to_arrow_table()


def _plain(column: Any) -> Times:
    """Integers without the mask that DuckDB puts on columns that may have NULL."""
    return np.ma.getdata(column).astype(np.int64, copy=False)


def floats(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """Integers as float64 with NaN for NULL (exact below 2**53: CPU clocks are)."""
    values: NDArray[np.float64] = column.cast(pa.float64()).to_numpy()
    return values


def table_of(
    evidence: Evidence,
    keys: dict[str, Any],
    starts: Times,
    window: NDArray[np.int64],
    complete: NDArray[np.bool_],
    columns: dict[str, Any],
) -> pa.Table:
    """Rows of `unit_breakdown`: keys, window and parts; a part that is not named is NULL."""
    size = len(window)
    return pa.table(
        {
            "rank": pa.array(np.full(size, evidence.rank, dtype=np.int32)),
            **keys,
            "timeline": pa.array([evidence.timeline] * size),
            "evidence": pa.array([evidence.source] * size),
            "start_ns": starts,
            "window_ns": window,
            **columns,
            "complete": complete,
        }
    )
