"""Device timelines: from records of kernels, from event pairs, from inside CUDA graphs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from harness_analysis.build.breakdown.evidence import Evidence, communication, spans, table_of
from harness_analysis.build.breakdown.windows import (
    activity,
    kernel_units,
    marked_units,
    unrecorded,
)
from harness_analysis.build.sweep import Intervals, divide, joined

if TYPE_CHECKING:
    import duckdb


_KERNELS = "category IN ('compute', 'comm', 'comm_fused', 'graph')"


def device_rows(con: duckdb.DuckDBPyConnection, evidence: Evidence) -> Iterator[pa.Table]:
    """Rows of a device timeline, by the way its evidence was taken."""
    if evidence.source == "app_timers":
        yield from _event_rows(con, evidence)
    elif evidence.source == "graph_events":
        yield from _graph_rows(con, evidence)
    else:
        yield from _kernel_rows(con, evidence)


def _kernel_rows(con: duckdb.DuckDBPyConnection, evidence: Evidence) -> Iterator[pa.Table]:
    """Kernel records cover everything that ran on the device: the rest is idle, but for graphs
    that were recorded as a whole, and for what lies between two recordings.

    Where copies alone are on record, kernels may have run and not been recorded.
    """
    transfer, wait, unsplit = communication(con, evidence)
    classes = {
        "compute_ns": spans(con, evidence, "category IN ('compute', 'memset')"),
        "fused_ns": spans(con, evidence, "category = 'comm_fused'"),
        "comm_transfer_ns": transfer,
        "comm_wait_ns": wait,
        "comm_unsplit_ns": unsplit,
        "memcpy_ns": spans(con, evidence, "category = 'memcpy'"),
        "unresolved_ns": joined(
            spans(con, evidence, "category = 'graph'"), unrecorded(con, evidence)
        ),
    }
    are_recorded = len(spans(con, evidence, _KERNELS).start) > 0
    units = kernel_units(con, evidence)
    for windows in (*([units] if units else []), *activity(con, evidence)):
        parts = divide(windows.edges, list(classes.values()))[windows.kept]
        length = np.diff(windows.edges)[windows.kept]
        columns: dict[str, Any] = {name: parts[:, k] for k, name in enumerate(classes)}
        if are_recorded:
            columns["idle_ns"] = length - parts.sum(axis=1)
        else:
            copied = columns["memcpy_ns"]
            columns = {"memcpy_ns": copied, "unresolved_ns": length - copied}
        starts = windows.edges[:-1][windows.kept]
        yield table_of(evidence, windows.keys, starts, length, windows.whole, columns)


def _event_rows(con: duckdb.DuckDBPyConnection, evidence: Evidence) -> Iterator[pa.Table]:
    """Event pairs alone: communication from the return of its call on, the rest unknown.

    A graph's replay is one interval. A rank without peers computes in it; of others nobody knows
    what it holds, so that only what was unsplit outside it is known at all.
    """
    windows = marked_units(con, evidence)
    if windows is None:
        return
    transfer, wait, unsplit = communication(con, evidence)
    copies = spans(con, evidence, "category = 'memcpy'")
    stamped = spans(con, Evidence(evidence.rank, "graph_events", "device"), "category = 'graph'")
    clean = spans(con, evidence, "category = 'graph'")
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
    yield table_of(evidence, windows.keys, windows.edges[:-1], length, windows.whole, columns)


def _graph_rows(con: duckdb.DuckDBPyConnection, evidence: Evidence) -> Iterator[pa.Table]:
    """Inside an instrumented replay what is not communication is compute; outside it unknown."""
    events = Evidence(evidence.rank, "app_timers", "device")
    windows = marked_units(con, events)
    replays = spans(con, evidence, "category = 'graph'")
    if windows is None or len(replays.start) == 0:
        return
    inside = communication(con, evidence)
    outside = communication(con, events)
    copies = spans(con, events, "category = 'memcpy'")
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
    yield table_of(evidence, keys, windows.edges[:-1][seen], length[seen], whole, chosen)


def _is_alone(con: duckdb.DuckDBPyConnection) -> bool:
    """Whether the run has one rank only, and so nothing to communicate."""
    return con.execute("SELECT world_size FROM run.runs LIMIT 1").fetchall() == [(1,)]
