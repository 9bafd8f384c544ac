"""Host timelines: the main thread's spans, and its CPU time in between."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from harness_analysis.build.breakdown.evidence import (
    ALL,
    KEYS,
    Evidence,
    arrow,
    communication,
    floats,
    spans,
    table_of,
)
from harness_analysis.build.sweep import Times, divide, tile

if TYPE_CHECKING:
    import duckdb


_TELL_FILES = ("app_timers",)
"""Sources that would show the host's files, were there any."""


@dataclass(frozen=True)
class Units:
    """Units of one rank in order of their windows: keys as columns, edges of the tiling."""

    keys: dict[str, Any]
    edges: Times
    complete: NDArray[np.bool_]
    cpu_ns: NDArray[np.float64]
    """Thread CPU time inside each window; NaN where it was not taken."""


def host_rows(con: duckdb.DuckDBPyConnection, evidence: Evidence) -> Iterator[pa.Table]:
    """Rows of a host timeline, and the row of phase `all`."""
    units = _host_units(con, evidence)
    if len(units.edges) < 2:
        return
    transfer, wait, unsplit = communication(con, evidence)
    files = spans(con, evidence, "category = 'io' AND coalesce(stream, 0) = 0")
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
    yield table_of(evidence, units.keys, units.edges[:-1], window, units.complete, columns)
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


def _has_peers(con: duckdb.DuckDBPyConnection) -> bool:
    """Whether the run is known to have several ranks."""
    asked = "SELECT coalesce(bool_or(world_size > 1), false) FROM run.runs"
    return con.execute(asked).fetchall() == [(True,)]


def _host_units(con: duckdb.DuckDBPyConnection, evidence: Evidence) -> Units:
    table = arrow(
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
    clock = floats(table["cpu_start_ns"])
    last = np.add(clock[-1:], floats(table["cpu_ns"])[-1:])
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


def _whole(evidence: Evidence, edges: Times, columns: dict[str, Any]) -> pa.Table:
    """The row of phase `all`: a rank from its first unit to the end of its last."""
    totals: dict[str, Any] = {}
    for name, values in columns.items():
        array = values if isinstance(values, pa.Array) else pa.array(values)
        known = [value for value in array.to_pylist() if value is not None]
        totals[name] = pa.array([sum(known) if known else None], type=pa.int64())
    window = np.array([edges[-1] - edges[0]], dtype=np.int64)
    keys = {"phase": pa.array([ALL])}
    return table_of(evidence, keys, edges[:1], window, np.array([True]), totals)
