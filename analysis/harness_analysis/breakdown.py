"""Where the time of every unit went: windows that tile, one sweep, nine parts.

Definitions: design, section 3 (docs/definitions.md). One rank at a time, so memory is bounded by
the rank with the most spans; O(n log n) in its spans.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from harness_analysis.sweep import Intervals, Times, divide, tile

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


@dataclass(frozen=True)
class Units:
    """Units of one rank in order of their windows: keys as columns, edges of the tiling."""

    keys: dict[str, Any]
    edges: Times
    complete: NDArray[np.bool_]
    cpu_ns: NDArray[np.float64]
    """Thread CPU time inside each window; NaN where it was not taken."""


def breakdown_tables(con: duckdb.DuckDBPyConnection) -> Iterator[pa.Table]:
    """Rows for `unit_breakdown`, one table for each rank and evidence, keys of work included."""
    for evidence in _evidence(con):
        if evidence.timeline == "device":
            yield from _device_rows(con, evidence)
        else:
            yield from _host_rows(con, evidence)


def _evidence(con: duckdb.DuckDBPyConnection) -> list[Evidence]:
    """Ranks and sources to divide: the device timeline where a source has one, else the host's."""
    rows = con.execute(
        """
        SELECT rank, source, bool_or(timeline = 'device'),
               bool_or(timeline = 'host' AND category = 'unit')
        FROM run.spans WHERE rank IS NOT NULL GROUP BY rank, source ORDER BY rank, source
        """
    ).fetchall()
    on_device = {rank for rank, _, device, _ in rows if device}
    found = []
    for rank, source, device, host in rows:
        if device:
            found.append(Evidence(rank, source, "device"))
        elif host and rank not in on_device:
            # A host timeline is divided only where the host computes: beside a GPU it launches.
            found.append(Evidence(rank, source, "host"))
    return found


# -- host timeline ---------------------------------------------------------------------------


def _host_rows(con: duckdb.DuckDBPyConnection, evidence: Evidence) -> Iterator[pa.Table]:
    units = _host_units(con, evidence)
    if len(units.edges) < 2:
        return
    transfer, wait, unsplit = _communication(con, evidence)
    files = _spans(con, evidence, "category = 'io' AND coalesce(stream, 0) = 0")
    parts = divide(units.edges, [transfer, wait, unsplit, files])
    window = np.diff(units.edges)
    rest = window - parts.sum(axis=1)
    cpu = units.cpu_ns - _cpu_inside(con, evidence, units.edges)
    known = ~np.isnan(cpu)
    compute = np.where(known, np.clip(np.nan_to_num(cpu), 0, rest), 0).astype(np.int64)
    columns: dict[str, Any] = {
        "compute_ns": pa.array(compute, mask=~known),
        "comm_transfer_ns": parts[:, 0],
        "comm_wait_ns": parts[:, 1],
        "comm_unsplit_ns": parts[:, 2],
        "io_ns": parts[:, 3],
        "unresolved_ns": rest - compute,
    }
    yield _table(evidence, units.keys, units.edges[:-1], window, units.complete, columns)
    yield _whole(evidence, units.edges, columns)


def _host_units(con: duckdb.DuckDBPyConnection, evidence: Evidence) -> Units:
    table = _arrow(
        con,
        f"""
        SELECT {", ".join(KEYS)}, start_ns, end_ns, complete, cpu_start_ns, cpu_ns
        FROM run.spans
        WHERE rank = ? AND source = ? AND timeline = 'host' AND category = 'unit'
          AND end_ns IS NOT NULL
        ORDER BY start_ns, span_id
        """,
        [evidence.rank, evidence.source],
    )
    starts = table["start_ns"].to_numpy()
    edges = tile(starts, table["end_ns"].to_numpy())
    clock = _floats(table["cpu_start_ns"])
    last = np.add(clock[-1:], _floats(table["cpu_ns"])[-1:])
    cpu = np.diff(np.concatenate([clock, last]))
    keys = {name: table[name] for name in KEYS}
    return Units(keys, edges, table["complete"].to_numpy(), cpu)


def _cpu_inside(
    con: duckdb.DuckDBPyConnection, evidence: Evidence, edges: Times
) -> NDArray[np.float64]:
    """CPU time that each window spent inside communication and file spans."""
    found = con.execute(
        """
        SELECT start_ns, cpu_ns FROM run.spans
        WHERE rank = ? AND source = ? AND timeline = 'host' AND category IN ('comm', 'io')
          AND coalesce(stream, 0) = 0 AND cpu_ns IS NOT NULL
        """,
        [evidence.rank, evidence.source],
    ).fetchnumpy()
    window = np.searchsorted(edges, found["start_ns"], side="right") - 1
    inside = (window >= 0) & (window < len(edges) - 1)
    total = np.zeros(len(edges) - 1)
    np.add.at(total, window[inside], found["cpu_ns"][inside].astype(float))
    return total


# -- device timeline -------------------------------------------------------------------------


def _device_rows(con: duckdb.DuckDBPyConnection, evidence: Evidence) -> Iterator[pa.Table]:
    transfer, wait, unsplit = _communication(con, evidence)
    classes = [
        _spans(con, evidence, "category IN ('compute', 'memset')"),
        _spans(con, evidence, "category = 'comm_fused'"),
        transfer,
        wait,
        unsplit,
        _spans(con, evidence, "category = 'memcpy'"),
    ]
    names = [
        "compute_ns",
        "fused_ns",
        "comm_transfer_ns",
        "comm_wait_ns",
        "comm_unsplit_ns",
        "memcpy_ns",
    ]
    units = _device_units(con, evidence)
    for keys, edges in (*([units] if units else []), *_activity(con, evidence)):
        parts = divide(edges, classes)
        window = np.diff(edges)
        columns: dict[str, Any] = {name: parts[:, k] for k, name in enumerate(names)}
        # Kernel records cover everything that ran on the device: the rest is idle.
        columns["idle_ns"] = window - parts.sum(axis=1)
        columns["unresolved_ns"] = np.zeros(len(window), dtype=np.int64)
        yield _table(evidence, keys, edges[:-1], window, np.ones(len(window), dtype=bool), columns)


def _device_units(
    con: duckdb.DuckDBPyConnection, evidence: Evidence
) -> tuple[dict[str, Any], Times] | None:
    """Windows from the first device work launched in a unit to the first launched in the next."""
    table = _arrow(
        con,
        f"""
        SELECT {", ".join(KEYS)}, min(start_ns) AS first_ns, max(end_ns) AS last_ns
        FROM run.spans
        WHERE rank = ? AND source = ? AND timeline = 'device' AND phase IS NOT NULL
          AND category IN ('compute', 'comm', 'comm_fused', 'memcpy', 'memset')
        GROUP BY {", ".join(KEYS)} ORDER BY first_ns
        """,
        [evidence.rank, evidence.source],
    )
    if table.num_rows == 0:
        return None
    edges = tile(table["first_ns"].to_numpy(), table["last_ns"].to_numpy())
    return {name: table[name] for name in KEYS}, edges


def _activity(
    con: duckdb.DuckDBPyConnection, evidence: Evidence
) -> list[tuple[dict[str, Any], Times]]:
    row = con.execute(
        """
        SELECT min(start_ns), max(end_ns) FROM run.spans
        WHERE rank = ? AND source = ? AND timeline = 'device'
          AND category IN ('compute', 'comm', 'comm_fused', 'memcpy', 'memset')
        """,
        [evidence.rank, evidence.source],
    ).fetchone()
    if row is None or row[0] is None:
        return []
    return [({"phase": pa.array([ALL])}, np.array(row, dtype=np.int64))]


# -- shared ----------------------------------------------------------------------------------


def _communication(
    con: duckdb.DuckDBPyConnection, evidence: Evidence
) -> tuple[Intervals, Intervals, Intervals]:
    """Transfer, wait and unsplit intervals: a rank waits first, then data moves."""
    found = con.execute(
        """
        SELECT start_ns, end_ns, coalesce(wait_ns, -1) AS wait_ns FROM run.collectives
        WHERE rank = ? AND source = ? AND timeline = ? AND end_ns IS NOT NULL
        """,
        [evidence.rank, evidence.source, evidence.timeline],
    ).fetchnumpy()
    start, end, wait = (_plain(found[name]) for name in ("start_ns", "end_ns", "wait_ns"))
    split = wait >= 0
    turn = start[split] + wait[split]
    return (
        Intervals(turn, end[split]),
        Intervals(start[split], turn),
        Intervals(start[~split], end[~split]),
    )


def _spans(con: duckdb.DuckDBPyConnection, evidence: Evidence, where: str) -> Intervals:
    found = con.execute(
        f"""
        SELECT start_ns, end_ns FROM run.spans
        WHERE rank = ? AND source = ? AND timeline = ? AND end_ns IS NOT NULL AND {where}
        """,
        [evidence.rank, evidence.source, evidence.timeline],
    ).fetchnumpy()
    return Intervals(_plain(found["start_ns"]), _plain(found["end_ns"]))


def _arrow(con: duckdb.DuckDBPyConnection, sql: str, parameters: list[Any]) -> pa.Table:
    return con.sql(sql, params=parameters).to_arrow_table()


def _plain(column: Any) -> Times:
    return np.ma.getdata(column).astype(np.int64)


def _floats(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """Integers as float64 with NaN for NULL (exact below 2**53: CPU clocks are)."""
    values: NDArray[np.float64] = column.cast(pa.float64()).to_numpy()
    return values


def _table(
    evidence: Evidence,
    keys: dict[str, Any],
    starts: Times,
    window: NDArray[np.int64],
    complete: NDArray[np.bool_],
    columns: dict[str, Any],
) -> pa.Table:
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


def _whole(evidence: Evidence, edges: Times, columns: dict[str, Any]) -> pa.Table:
    """The row of phase `all`: a rank from its first unit to the end of its last."""
    totals: dict[str, Any] = {}
    for name, values in columns.items():
        array = values if isinstance(values, pa.Array) else pa.array(values)
        known = [value for value in array.to_pylist() if value is not None]
        totals[name] = pa.array([sum(known) if known else None], type=pa.int64())
    window = np.array([edges[-1] - edges[0]], dtype=np.int64)
    keys = {"phase": pa.array([ALL])}
    return _table(evidence, keys, edges[:1], window, np.array([True]), totals)
