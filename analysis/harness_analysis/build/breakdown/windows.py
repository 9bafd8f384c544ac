"""Windows on a device: where each unit's work begins, by what recorded it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from harness_analysis.build.breakdown.evidence import ALL, KEYS, Evidence, arrow, spans_at
from harness_analysis.build.sweep import Intervals, Times, tile

if TYPE_CHECKING:
    import duckdb


_RECORDED = "name IN ('torch_profiler.window', 'nsys.window')"


@dataclass(frozen=True)
class Windows:
    """Windows on a device: edges, which of the windows between them are units, their keys, and
    which of these units ended before their recording did."""

    keys: dict[str, Any]
    edges: Times
    kept: NDArray[np.bool_]
    whole: NDArray[np.bool_]


def kernel_units(con: duckdb.DuckDBPyConnection, evidence: Evidence) -> Windows | None:
    """Windows from the first device work launched in a unit to the first launched in the next.

    Between two windows of a profiler nothing was recorded: there a unit ends with its own work.
    """
    table = arrow(
        con,
        f"""
        SELECT {", ".join(KEYS)}, min(start_ns) FILTER (timeline = 'device') AS first_ns,
          max(end_ns) FILTER (timeline = 'device') AS last_ns,
          coalesce(bool_and(complete) FILTER (category = 'unit'), true) AS sure
        FROM spans_here
        WHERE rank = ? AND source = ? AND (phase IS NOT NULL OR step IS NOT NULL)
          AND (timeline = 'host' AND category = 'unit' OR timeline = 'device'
            AND category IN ('compute', 'comm', 'comm_fused', 'memcpy', 'memset', 'graph'))
        GROUP BY {", ".join(KEYS)} HAVING first_ns IS NOT NULL ORDER BY first_ns
        """,
        [evidence.rank, evidence.source],
    )
    if table.num_rows == 0:
        return None
    first, last = table["first_ns"].to_numpy(), table["last_ns"].to_numpy()
    opened = spans_at(con, evidence, "host", _RECORDED).start
    recording = np.searchsorted(np.sort(opened), first, side="right")
    cut = np.append(recording[1:] != recording[:-1], False)
    # A cut unit gets an edge at its own end; what lies between that and the next is no unit.
    ends = np.maximum(last, first)[cut]
    edges = np.sort(np.concatenate([tile(first, last), np.minimum(ends, first[1:][cut[:-1]])]))
    kept = np.isin(edges[:-1], first)
    kept[1:] &= edges[1:-1] != edges[:-2]
    # Where the end of a recording is lost, its last unit on the device may have gone on.
    sure = table["sure"].to_numpy()
    whole = sure | np.append(~sure[1:], False)
    return Windows({name: table[name] for name in KEYS}, edges, kept, whole)


def marked_units(con: duckdb.DuckDBPyConnection, evidence: Evidence) -> Windows | None:
    """Windows between the events that the recorder put at the start of every unit."""
    table = arrow(
        con,
        f"""
        SELECT {", ".join(KEYS)}, start_ns, end_ns FROM spans_here
        WHERE rank = ? AND source = ? AND timeline = 'device' AND category = 'unit'
          AND end_ns IS NOT NULL
        ORDER BY start_ns, span_id
        """,
        [evidence.rank, evidence.source],
    )
    if table.num_rows == 0:
        return None
    edges = tile(table["start_ns"].to_numpy(), table["end_ns"].to_numpy())
    every = np.ones(len(edges) - 1, dtype=bool)
    return Windows({name: table[name] for name in KEYS}, edges, every, every)


def activity(con: duckdb.DuckDBPyConnection, evidence: Evidence) -> list[Windows]:
    """The one window from the first device work to the end of the last; empty: there is none."""
    # All of the result: one that is not finished bars other work on the connection.
    (row,) = con.execute(
        """
        SELECT min(start_ns), max(end_ns) FROM spans_here
        WHERE rank = ? AND source = ? AND timeline = 'device'
          AND category IN ('compute', 'comm', 'comm_fused', 'memcpy', 'memset', 'graph')
        """,
        [evidence.rank, evidence.source],
    ).fetchall()
    if row[0] is None:
        return []
    edges = np.array(row, dtype=np.int64)
    every = np.array([True])
    return [Windows({"phase": pa.array([ALL])}, edges, every, every)]


def unrecorded(con: duckdb.DuckDBPyConnection, evidence: Evidence) -> Intervals:
    """What lies between two recordings of a rank."""
    found = spans_at(con, evidence, "host", _RECORDED)
    order = np.argsort(found.start, kind="stable")
    ended = np.maximum.accumulate(found.end[order])
    return Intervals(ended[:-1], found.start[order][1:]).sound()
