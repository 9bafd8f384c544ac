"""Rows of `spans` out of one rank's part of a report, columns at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

import numpy as np
import pyarrow as pa

from harness_collectors.nsys.export.layouts import NULL, Ints
from harness_collectors.nsys.export.names import UNNAMED_KERNEL
from harness_collectors.nsys.report.work import GRAPH, IO, KERNEL, KINDS, OP
from harness_collectors.nsys.rows.trace import SOURCE, RankTrace, durations
from harness_collectors.reading.text_evidence import batch
from harness_collectors.traces.classes import Classes
from harness_collectors.traces.columns import coded, constant, known, texts
from harness_collectors.traces.hidden_graphs import HIDDEN, UNSEEN
from harness_schemas.spi import Batch

GROUP_ROWS: Final = 122_880
"""Rows that DuckDB stores together: it inserts whole groups at once, a thread each."""
GROUPS: Final = 4
_FIXED_CLASSES: Final = {GRAPH: ("graph", "graph-trace"), IO: ("io", "osrt-file")}
"""Categories and rules of kinds that the table of rules does not know."""
UNTOLD: Final = ("graph", "unnamed-kernel")
"""A kernel whose name is lost computed or communicated: as of a whole graph nobody knows."""


def span_batches(trace: RankTrace) -> Iterator[Batch]:
    """Units, the recorded window, device work, the host's rows, and replays not on record."""
    if trace.units and trace.tells_units:
        yield Batch("spans", _unit_spans(trace))
    if trace.tells_window:
        yield _window(trace)
    classes = _classes(trace)
    for part in grouped(len(trace.device)):
        yield Batch("spans", pa.concat_tables(_device_spans(trace, classes, rows) for rows in part))
    for part in grouped(len(trace.host_rows)):
        yield Batch("spans", pa.concat_tables(_host_spans(trace, classes, rows) for rows in part))
    if len(trace.hidden_graphs[0]):
        yield Batch("spans", _hidden_graphs(trace))


def _window(trace: RankTrace) -> Batch:
    """The stretch that the report covers: between two of them nothing is known."""
    first, last = trace.bounds or (0, 0)
    row = {
        "rank": trace.rank,
        "span_id": trace.first_window,
        "source": SOURCE,
        "timeline": "host",
        "name": "nsys.window",
        "category": "phase",
        "start_ns": first,
        "end_ns": last,
        "perturbed_by": SOURCE if trace.shared.own_run else None,
        "complete": True,
    }
    return batch("spans", [row])


def _hidden_graphs(trace: RankTrace) -> pa.Table:
    """Each as a graph as a whole, from its launch to the next work that was launched after it:
    when it ran in between is not known, but the device need not have been idle."""
    calls, until = trace.hidden_graphs
    start, size = trace.host.start[calls], len(calls)
    columns = {
        **trace.key_columns(trace.host_units(calls)),
        "span_id": pa.array(np.arange(size) + trace.first_hidden),
        "source": constant(SOURCE, size),
        "timeline": constant("device", size),
        "name": constant(HIDDEN if trace.has_kernels else UNSEEN, size),
        "category": constant("graph", size),
        "rule": constant("graph-not-recorded", size),
        **interval(trace, start, until),
        "launch_ns": pa.array(start + trace.offset_ns),
        "correlation": pa.array(trace.host.correlation[calls]),
    }
    columns["complete"] = pa.array(np.zeros(size, np.bool_))
    return pa.table(columns)


def grouped(size: int) -> Iterator[list[Ints]]:
    """Row numbers, in the portions of one insert, of the groups that it is stored in."""
    groups = [
        np.arange(first, min(first + GROUP_ROWS, size)) for first in range(0, size, GROUP_ROWS)
    ]
    for first in range(0, len(groups), GROUPS):
        yield groups[first : first + GROUPS]


def _classes(trace: RankTrace) -> Classes:
    names, classifier = trace.shared.names, trace.shared.classifier
    on_device = len(trace.device) > 0

    def of(kind: int, name: int) -> tuple[str, str]:
        if kind == KERNEL and names[name] == UNNAMED_KERNEL:
            return UNTOLD
        fixed = _FIXED_CLASSES.get(kind)
        if fixed is not None:
            return fixed
        # Beside a device operators only launch; without one they compute.
        what = "host_op" if kind == OP and on_device else KINDS[kind]
        return classifier.classify(names[name], what)

    return Classes(len(KINDS), len(names), of)


def _device_spans(trace: RankTrace, classes: Classes, rows: Ints) -> pa.Table:
    work, size = trace.device.take(rows), len(rows)
    launched, launch_start, _ = trace.launches(rows)
    unit = trace.device_units(rows)
    trace.device_rows_in_units += int((unit >= 0).sum())
    return pa.table(
        {
            **trace.key_columns(unit),
            "span_id": pa.array(rows + trace.first_device),
            "source": constant(SOURCE, size),
            "timeline": constant("device", size),
            "device": small(work.device),
            "stream": known(work.stream, work.stream >= 0),
            "name": coded(work.name, trace.shared.name_values),
            **classes.columns(classes.of(work.kind, work.name)),
            **interval(trace, work.start, work.end),
            "launch_ns": known(launch_start + trace.offset_ns, launched),
            "correlation": known(work.correlation, work.correlation > 0),
            "graph_id": known(work.graph, work.graph > 0),
            "bytes": known(work.bytes, work.bytes >= 0),
            "attrs": _graph_attrs(trace, rows),
        }
    )


def _graph_attrs(trace: RankTrace, rows: Ints) -> pa.Array:
    """Device work of a CUDA graph says so: few versions give the graph an id."""
    launch = trace.launch[rows]
    replayed = trace.device.replayed[rows]
    if len(trace.host):
        replayed |= (launch >= 0) & trace.shared.graph_calls[trace.host.name[launch]]
    return coded(np.where(replayed, 0, -1), [json.dumps({"graph_launch": True})])


def _host_spans(trace: RankTrace, classes: Classes, places: Ints) -> pa.Table:
    rows = trace.host_rows[places]
    work, size, unit = trace.host.take(rows), len(rows), trace.host_units(rows)
    codes = classes.of(work.kind, work.name)
    for row, rule in trace.found.phases_within(int(rows[0]), int(rows[-1])):
        codes[np.searchsorted(rows, row)] = classes.code(("phase", rule))
    parent = unit if trace.tells_units else np.full(size, -1)
    return pa.table(
        {
            **trace.key_columns(unit),
            "span_id": pa.array(places + trace.first_host),
            "parent_id": known(parent + trace.first_unit, parent >= 0),
            "source": constant(SOURCE, size),
            "timeline": constant("host", size),
            "stream": threads(trace, work.thread),
            "name": coded(work.name, trace.shared.name_values),
            **classes.columns(codes),
            **interval(trace, work.start, work.end),
            "correlation": known(work.correlation, work.correlation > 0),
        }
    )


def _unit_spans(trace: RankTrace) -> pa.Table:
    units, size = trace.units, len(trace.units)
    start = np.array([unit.start for unit in units], np.int64)
    end = np.array([NULL if unit.end is None else unit.end for unit in units], np.int64)
    return pa.table(
        {
            **trace.key_columns(np.arange(size)),
            "span_id": pa.array(np.arange(size) + trace.first_unit),
            "source": constant(SOURCE, size),
            "timeline": constant("host", size),
            "stream": threads(trace, np.array([unit.thread for unit in units])),
            "name": coded(*texts([unit.name for unit in units])),
            "category": constant("unit", size),
            "rule": coded(*texts([unit.mark.rule for unit in units])),
            **interval(trace, start, end),
        }
    )


# -- columns -----------------------------------------------------------------------------------


def threads(trace: RankTrace, thread: np.ndarray) -> pa.Array:
    """Thread ids, 0 for the process's main thread (on Linux its id is the process's)."""
    return pa.array(np.where(thread == trace.pid, 0, thread).astype(np.int64))


def small(values: np.ndarray) -> pa.Array:
    """Numbers for an INTEGER column; negative ones are unknown."""
    return known(values, values >= 0)


def interval(trace: RankTrace, start: Ints, end: Ints) -> dict[str, pa.Array]:
    """Times of rows; a span without an end is not complete."""
    length = durations(start, end)
    begin = start + trace.offset_ns
    return {
        "start_ns": pa.array(begin),
        "end_ns": known(begin + length, length >= 0),
        "raw_start_ns": pa.array(start),
        "complete": pa.array(length >= 0),
    }
