"""Where the time of every unit went: windows that tile, one sweep, nine parts.

Definitions: design, section 3 (docs/definitions.md). One rank at a time, so memory is bounded by
the rank with the most spans; O(n log n) in its spans. Reads the temporary relations `sources_here`,
`spans_here` and `collectives_here` (harness_analysis.build.chunks).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from harness_analysis.build.sweep import Intervals, Times, divide, joined, tile

if TYPE_CHECKING:
    import duckdb

KEYS = ("batch", "microbatch", "repeat", "phase", "step", "warmup", "perturbed_by")
_TELL_FILES = ("app_timers",)
"""Sources that would show the host's files, were there any."""
_RECORDED = "name IN ('torch_profiler.window', 'nsys.window')"
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
    """Rows for `unit_breakdown` of the ranks in `sources_here`, one table for each rank and
    evidence, keys of work included."""
    for evidence in _evidence(con):
        if evidence.timeline == "device":
            yield from _device_rows(con, evidence)
        else:
            yield from _host_rows(con, evidence)


def _evidence(con: duckdb.DuckDBPyConnection) -> list[Evidence]:
    """Ranks and sources to divide: the device timeline where a source has one, else the host's."""
    rows = con.execute(
        "SELECT rank, source, on_device, host_units FROM sources_here ORDER BY rank, source"
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
    calls = _tells_calls(con, evidence, len(transfer.start) + len(unsplit.start) > 0)
    told = (calls, calls, calls, evidence.source in _TELL_FILES or len(files.start) > 0)
    names = ("comm_transfer_ns", "comm_wait_ns", "comm_unsplit_ns", "io_ns")
    columns: dict[str, Any] = {
        "compute_ns": pa.array(compute, mask=~known),
        **{
            name: pa.array(parts[:, part], mask=(parts[:, part] == 0) & (not told[part]))
            for part, name in enumerate(names)
        },
        "unresolved_ns": rest - compute,
    }
    yield _table(evidence, units.keys, units.edges[:-1], window, units.complete, columns)
    yield _whole(evidence, units.edges, columns)


def _tells_calls(con: duckdb.DuckDBPyConnection, evidence: Evidence, seen: bool) -> bool:
    """Whether a host timeline that shows no communication in a window had none there.

    Traces of the host's activities alone show that NCCL was called, not what that took; and of a
    rank that has peers, one that shows no call at all shows not how it spoke with them.
    """
    if evidence.source != "torch_profiler":
        return seen or evidence.source == "app_timers"
    launched = con.execute(
        """
        SELECT coalesce(bool_or(name SIMILAR TO '(nccl|xccl|hccl):.*'), false),
          coalesce(bool_or(category IN ('comm', 'comm_fused')), false)
        FROM run.spans WHERE rank = ? AND source = ? AND timeline = 'host'
        """,
        [evidence.rank, evidence.source],
    ).fetchall()
    (by_device, called) = launched[0]
    return not by_device and (seen or not (called or _has_peers(con)))


def _host_units(con: duckdb.DuckDBPyConnection, evidence: Evidence) -> Units:
    table = _arrow(
        con,
        f"""
        SELECT {", ".join(KEYS)}, start_ns, end_ns, complete, cpu_start_ns, cpu_ns
        FROM spans_here
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
        SELECT start_ns, cpu_ns FROM spans_here
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
    if evidence.source == "app_timers":
        yield from _event_rows(con, evidence)
    elif evidence.source == "graph_events":
        yield from _graph_rows(con, evidence)
    else:
        yield from _kernel_rows(con, evidence)


def _kernel_rows(con: duckdb.DuckDBPyConnection, evidence: Evidence) -> Iterator[pa.Table]:
    """Kernel records cover everything that ran on the device: the rest is idle, but for graphs
    that were recorded as a whole, and for what lies between two recordings."""
    transfer, wait, unsplit = _communication(con, evidence)
    classes = {
        "compute_ns": _spans(con, evidence, "category IN ('compute', 'memset')"),
        "fused_ns": _spans(con, evidence, "category = 'comm_fused'"),
        "comm_transfer_ns": transfer,
        "comm_wait_ns": wait,
        "comm_unsplit_ns": unsplit,
        "memcpy_ns": _spans(con, evidence, "category = 'memcpy'"),
        "unresolved_ns": joined(
            _spans(con, evidence, "category = 'graph'"), _unrecorded(con, evidence)
        ),
    }
    units = _kernel_units(con, evidence)
    for windows in (*([units] if units else []), *_activity(con, evidence)):
        parts = divide(windows.edges, list(classes.values()))[windows.kept]
        length = np.diff(windows.edges)[windows.kept]
        columns: dict[str, Any] = {name: parts[:, k] for k, name in enumerate(classes)}
        columns["idle_ns"] = length - parts.sum(axis=1)
        starts = windows.edges[:-1][windows.kept]
        yield _table(evidence, windows.keys, starts, length, windows.whole, columns)


def _event_rows(con: duckdb.DuckDBPyConnection, evidence: Evidence) -> Iterator[pa.Table]:
    """Event pairs alone: communication from the return of its call on, the rest unknown.

    A graph's replay is one interval. A rank without peers computes in it; of others nobody knows
    what it holds, so that only what was unsplit outside it is known at all.
    """
    windows = _marked_units(con, evidence)
    if windows is None:
        return
    transfer, wait, unsplit = _communication(con, evidence)
    copies = _spans(con, evidence, "category = 'memcpy'")
    stamped = _spans(con, Evidence(evidence.rank, "graph_events", "device"), "category = 'graph'")
    clean = _spans(con, evidence, "category = 'graph'")
    replays = Intervals(
        np.concatenate([clean.start, stamped.start]), np.concatenate([clean.end, stamped.end])
    )
    parts = divide(windows.edges, [transfer, wait, unsplit, copies, replays])
    length = np.diff(windows.edges)
    replayed, alone = parts[:, 4] > 0, _is_alone(con)
    hidden = replayed & (not alone)
    compute = np.where(replayed, parts[:, 4], 0) if alone else np.zeros_like(length)
    columns: dict[str, Any] = {
        "compute_ns": pa.array(compute, mask=~(replayed & alone)),
        "comm_transfer_ns": pa.array(parts[:, 0], mask=hidden & (parts[:, 0] == 0)),
        "comm_wait_ns": pa.array(parts[:, 1], mask=hidden & (parts[:, 1] == 0)),
        "comm_unsplit_ns": parts[:, 2],
        "memcpy_ns": pa.array(parts[:, 3], mask=hidden & (parts[:, 3] == 0)),
        "unresolved_ns": length - parts[:, :4].sum(axis=1) - compute,
    }
    yield _table(evidence, windows.keys, windows.edges[:-1], length, windows.whole, columns)


def _is_alone(con: duckdb.DuckDBPyConnection) -> bool:
    """Whether the run has one rank only, and so nothing to communicate."""
    return con.execute("SELECT world_size FROM run.runs LIMIT 1").fetchall() == [(1,)]


def _has_peers(con: duckdb.DuckDBPyConnection) -> bool:
    """Whether the run is known to have several ranks."""
    asked = "SELECT coalesce(bool_or(world_size > 1), false) FROM run.runs"
    return con.execute(asked).fetchall() == [(True,)]


def _graph_rows(con: duckdb.DuckDBPyConnection, evidence: Evidence) -> Iterator[pa.Table]:
    """Inside an instrumented replay what is not communication is compute; outside it unknown."""
    events = Evidence(evidence.rank, "app_timers", "device")
    windows = _marked_units(con, events)
    replays = _spans(con, evidence, "category = 'graph'")
    if windows is None or len(replays.start) == 0:
        return
    inside = _communication(con, evidence)
    outside = _communication(con, events)
    copies = _spans(con, events, "category = 'memcpy'")
    parts = divide(windows.edges, [*inside, replays, *outside, copies])
    length = np.diff(windows.edges)
    seen = parts[:, 3] > 0
    columns: dict[str, Any] = {
        "compute_ns": parts[:, 3],
        "comm_transfer_ns": parts[:, 0] + parts[:, 4],
        "comm_wait_ns": parts[:, 1] + parts[:, 5],
        "comm_unsplit_ns": parts[:, 2] + parts[:, 6],
        "memcpy_ns": parts[:, 7],
        "unresolved_ns": length - parts.sum(axis=1),
    }
    chosen = {name: values[seen] for name, values in columns.items()}
    keys = {name: column.filter(pa.array(seen)) for name, column in windows.keys.items()}
    whole = np.ones(int(seen.sum()), dtype=bool)
    yield _table(evidence, keys, windows.edges[:-1][seen], length[seen], whole, chosen)


@dataclass(frozen=True)
class Windows:
    """Windows on a device: edges, which of the windows between them are units, their keys, and
    which of these units ended before their recording did."""

    keys: dict[str, Any]
    edges: Times
    kept: NDArray[np.bool_]
    whole: NDArray[np.bool_]


def _kernel_units(con: duckdb.DuckDBPyConnection, evidence: Evidence) -> Windows | None:
    """Windows from the first device work launched in a unit to the first launched in the next.

    Between two windows of a profiler nothing was recorded: there a unit ends with its own work.
    """
    table = _arrow(
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
    opened = _spans_at(con, evidence, "host", _RECORDED).start
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


def _unrecorded(con: duckdb.DuckDBPyConnection, evidence: Evidence) -> Intervals:
    """What lies between two recordings of a rank."""
    found = _spans_at(con, evidence, "host", _RECORDED)
    order = np.argsort(found.start, kind="stable")
    ended = np.maximum.accumulate(found.end[order])
    return Intervals(ended[:-1], found.start[order][1:]).sound()


def _marked_units(con: duckdb.DuckDBPyConnection, evidence: Evidence) -> Windows | None:
    """Windows between the events that the recorder put at the start of every unit."""
    table = _arrow(
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


def _activity(con: duckdb.DuckDBPyConnection, evidence: Evidence) -> list[Windows]:
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


# -- shared ----------------------------------------------------------------------------------


def _communication(
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


def _spans(con: duckdb.DuckDBPyConnection, evidence: Evidence, where: str) -> Intervals:
    return _spans_at(con, evidence, evidence.timeline, where)


def _spans_at(
    con: duckdb.DuckDBPyConnection, evidence: Evidence, timeline: str, where: str
) -> Intervals:
    found = con.execute(
        f"""
        SELECT start_ns, end_ns FROM spans_here
        WHERE rank = ? AND source = ? AND timeline = ? AND end_ns IS NOT NULL AND {where}
        """,
        [evidence.rank, evidence.source, timeline],
    ).fetchnumpy()
    return Intervals(_plain(found["start_ns"]), _plain(found["end_ns"]))


def _arrow(con: duckdb.DuckDBPyConnection, sql: str, parameters: list[Any]) -> pa.Table:
    return con.sql(sql, params=parameters).to_arrow_table()


def _plain(column: Any) -> Times:
    return np.ma.getdata(column).astype(np.int64, copy=False)


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
