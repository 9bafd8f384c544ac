"""What devices show of a rank between two collectives of a group: why it came late.

Definitions: design, section 3, "Why a rank is late". One rank at a time; O(n log n) in its
spans and collectives, however many groups it is in. Only differences of a rank's own clock are
taken, so clocks of different ranks need not agree.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from harness_analysis.build.sweep import Intervals, Times, running_totals

if TYPE_CHECKING:
    import duckdb

KERNEL_SOURCES = ("torch_profiler", "nsys")
"""Evidence of everything that ran on the device: what is left is launch gaps."""
IN_GRAPH = "graph_events"
"""Evidence of communication inside graph replays: the rest of a replay is compute."""


def add_device_gaps(con: duckdb.DuckDBPyConnection) -> None:
    """Add the device's rows to the temporary table `gaps` (sql/build/gaps.sql)."""
    for found in _device_gaps(con):  # noqa: B007 - DuckDB finds it by its name
        con.execute("INSERT INTO gaps BY NAME FROM found")


def _device_gaps(con: duckdb.DuckDBPyConnection) -> Iterator[pa.Table]:
    """Rows for `gaps`, a table for each rank and source."""
    found = con.execute(
        """
        SELECT DISTINCT source, rank FROM collectives_here
        WHERE timeline = 'device' AND list_contains(?, source) AND rank IS NOT NULL
        ORDER BY source, rank
        """,
        [[*KERNEL_SOURCES, IN_GRAPH]],
    ).fetchall()
    for source, rank in found:
        gaps = _gaps(con, source, rank)
        if gaps.num_rows:
            divided = _inside_graphs if source == IN_GRAPH else _by_kernels
            yield _with_parts(gaps, divided(con, source, rank, _ends(gaps)))


def _gaps(con: duckdb.DuckDBPyConnection, source: str, rank: int) -> pa.Table:
    """From leaving one collective of a group to entering the next, within one recording."""
    return con.sql(
        """
        WITH recorded AS (
          SELECT start_ns FROM spans_here
          WHERE source = ? AND rank = ? AND timeline = 'host' AND name = 'torch_profiler.window'
        ), neighbours AS (
          SELECT source, comm_group, rank, seq, lag(seq) OVER grp AS previous,
            lag(end_ns) OVER grp AS left_ns, start_ns AS entered_ns
          FROM collectives_here
          WHERE source = ? AND rank = ? AND timeline = 'device' AND group_size > 1
            AND op IN (FROM synchronising) AND wait_ns IS NOT NULL
          WINDOW grp AS (PARTITION BY comm_group ORDER BY start_ns, seq)
        )
        SELECT * FROM neighbours n ASOF LEFT JOIN recorded r ON n.entered_ns >= r.start_ns
        WHERE left_ns <= entered_ns AND coalesce(r.start_ns <= left_ns, true)
        """,
        params=[source, rank, source, rank],
    ).to_arrow_table()


def _ends(gaps: pa.Table) -> Times:
    """Both ends of every gap, shape (2, n)."""
    return np.stack([gaps["left_ns"].to_numpy(), gaps["entered_ns"].to_numpy()])


def _by_kernels(
    con: duckdb.DuckDBPyConnection, source: str, rank: int, ends: Times
) -> dict[str, NDArray[np.int64]]:
    """Parts by precedence: computing, kernels that do both, communication, copies, nothing."""
    classes = [
        _spans(con, source, rank, ("compute", "memset")),
        _spans(con, source, rank, ("comm_fused",)),
        _communication(con, source, rank),
        _spans(con, source, rank, ("memcpy",)),
    ]
    totals = running_totals(classes, ends)
    parts = totals[1] - totals[0]
    launch = ends[1] - ends[0] - parts.sum(axis=1)
    return {"compute": parts[:, 0], "comm": parts[:, 2], "copy": parts[:, 3], "launch": launch}


def _inside_graphs(
    con: duckdb.DuckDBPyConnection, source: str, rank: int, ends: Times
) -> dict[str, NDArray[np.int64]]:
    """Only computing is known: what lies between two replays left no event."""
    classes = [_communication(con, source, rank), _spans(con, source, rank, ("graph",))]
    totals = running_totals(classes, ends)
    return {"compute": (totals[1] - totals[0])[:, 1]}


def _with_parts(gaps: pa.Table, parts: dict[str, NDArray[np.int64]]) -> pa.Table:
    names = ["source", "comm_group", "rank", "seq", "previous", "left_ns", "entered_ns"]
    return pa.table({**{name: gaps[name] for name in names}, **parts})


def _spans(
    con: duckdb.DuckDBPyConnection, source: str, rank: int, categories: tuple[str, ...]
) -> Intervals:
    return _intervals(
        con,
        """
        SELECT start_ns, end_ns FROM spans_here
        WHERE source = ? AND rank = ? AND timeline = 'device' AND end_ns IS NOT NULL
          AND list_contains(?, category)
        """,
        [source, rank, list(categories)],
    )


def _communication(con: duckdb.DuckDBPyConnection, source: str, rank: int) -> Intervals:
    return _intervals(
        con,
        """
        SELECT start_ns, end_ns FROM collectives_here
        WHERE source = ? AND rank = ? AND timeline = 'device' AND end_ns IS NOT NULL
        """,
        [source, rank],
    )


def _intervals(con: duckdb.DuckDBPyConnection, sql: str, parameters: list[Any]) -> Intervals:
    found = con.execute(sql, parameters).fetchnumpy()
    start, end = (
        np.ma.getdata(found[name]).astype(np.int64, copy=False) for name in ("start_ns", "end_ns")
    )
    return Intervals(start, end)
