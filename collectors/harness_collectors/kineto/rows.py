"""Rows of `spans` out of one Kineto file, columns at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

import numpy as np
import pyarrow as pa

from harness_collectors.kineto.kinds import ANNOTATION, KINDS, OP
from harness_collectors.kineto.trace import BATCH_ROWS, SOURCE, TraceFile, interval, key_columns
from harness_collectors.traces.classes import Classes
from harness_collectors.traces.columns import coded, constant, known, texts
from harness_schemas.spi import Batch

HOST_COMM: Final = ("gloo:", "mpi:", "ucc:")
"""Annotations of collectives that the host itself runs; `nccl:` ones only launch."""


def device_batches(trace: TraceFile) -> Iterator[Batch]:
    """Units, and device work."""
    if trace.units:
        yield Batch("spans", _unit_spans(trace))
    classes, size = _device_classes(trace), len(trace.columns.device)
    for first in range(0, size, BATCH_ROWS):
        rows = np.arange(first, min(first + BATCH_ROWS, size))
        yield Batch("spans", _device_spans(trace, classes, rows))


def host_batches(trace: TraceFile) -> Iterator[Batch]:
    """The host's rows."""
    classes = _host_classes(trace)
    for first in range(0, len(trace.columns.host), BATCH_ROWS):
        rows = trace.host_rows(first, first + BATCH_ROWS)
        if rows.size:
            yield Batch("spans", _host_spans(trace, classes, rows))


def _device_classes(trace: TraceFile) -> Classes:
    names, classify = trace.device_names, trace.columns.classifier.classify
    return Classes(len(KINDS), len(names), lambda kind, name: classify(names[name], KINDS[kind]))


def _host_classes(trace: TraceFile) -> Classes:
    """On a trace without device work operators compute; beside a device they only launch."""
    names, classify = trace.host_names, trace.columns.classifier.classify

    def of(kind: int, name: int) -> tuple[str, str]:
        what = KINDS[kind]
        if kind == OP and trace.has_device:
            what = "host_op"
        if kind == ANNOTATION and names[name].startswith(HOST_COMM):
            what = "op"
        return classify(names[name], what)

    return Classes(len(KINDS), len(names), of)


def _device_spans(trace: TraceFile, classes: Classes, rows: np.ndarray) -> pa.Table:
    columns, size = trace.columns.device, len(rows)
    stream, graph = columns.at("stream", rows), columns.at("graph", rows)
    device, correlation = columns.at("device", rows), columns.at("correlation", rows)
    num_bytes, name = columns.at("bytes", rows), columns.at("name", rows)
    launched, launch_start, _ = trace.launches(rows)
    unit = trace.device_units(rows)
    trace.device_rows_in_units += int((unit >= 0).sum())
    return pa.table(
        {
            **key_columns(trace, unit),
            "span_id": pa.array(rows + trace.first_device),
            "source": constant(SOURCE, size),
            "timeline": constant("device", size),
            "device": known(device, device >= 0),
            "stream": known(stream, stream >= 0),
            "name": coded(name, trace.coded_device_names),
            **classes.columns(classes.of(columns.at("kind", rows), name)),
            **interval(trace, columns.at("start", rows), columns.at("dur", rows)),
            "launch_ns": known(launch_start + trace.offset_ns, launched),
            "correlation": known(correlation, correlation > 0),
            "graph_id": known(graph, graph > 0),
            "bytes": known(num_bytes, num_bytes >= 0),
            "attrs": _launch_attrs(trace, rows),
        }
    )


def _launch_attrs(trace: TraceFile, rows: np.ndarray) -> pa.Array:
    """Device work of a CUDA graph says so: not every version gives the graph an id."""
    names = trace.columns.host["name"]
    if not len(names):
        return pa.nulls(len(rows), pa.string())
    launch = trace.launch[rows]
    replayed = (launch >= 0) & trace.launches_graph[names[launch]]
    return coded(np.where(replayed, 0, -1), [json.dumps({"graph_launch": True})])


def _host_spans(trace: TraceFile, classes: Classes, rows: np.ndarray) -> pa.Table:
    columns, size = trace.columns.host, len(rows)
    thread, name, unit = (
        columns.at("thread", rows),
        columns.at("name", rows),
        trace.host_units(rows),
    )
    codes = classes.of(columns.at("kind", rows), name)
    for row, rule in trace.found.phases_within(int(rows[0]), int(rows[-1])):
        codes[np.searchsorted(rows, row)] = classes.code(("phase", rule))
    return pa.table(
        {
            **key_columns(trace, unit),
            "span_id": pa.array(trace.host_span_ids(rows)),
            "parent_id": known(unit + trace.first_unit, unit >= 0),
            "source": constant(SOURCE, size),
            "timeline": constant("host", size),
            "stream": _threads(trace, thread),
            "name": coded(name, trace.coded_host_names),
            **classes.columns(codes),
            **interval(trace, columns.at("start", rows), columns.at("dur", rows)),
            "correlation": _call_ids(trace, rows),
        }
    )


def _threads(trace: TraceFile, codes: np.ndarray) -> pa.Array:
    """Thread ids, 0 for a process's main thread (on Linux its id is the process's)."""
    ids = trace.columns.threads.ids
    thread = np.where(np.isin(ids, list(trace.columns.pids)), 0, ids)[codes]
    return known(thread, ids[codes] >= 0)


def _call_ids(trace: TraceFile, rows: np.ndarray) -> pa.Array:
    """Correlation ids of CUDA calls among host rows."""
    calls = trace.columns.calls
    if not len(calls):
        return pa.nulls(len(rows), pa.int64())
    of_calls = calls["row"]
    # In the column's own type, or numpy would convert all of it for every batch.
    sought = np.minimum(rows, np.iinfo(of_calls.dtype).max).astype(of_calls.dtype)
    place = np.minimum(np.searchsorted(of_calls, sought), len(calls) - 1)
    return known(calls.at("correlation", place), of_calls[place] == rows)


def _unit_spans(trace: TraceFile) -> pa.Table:
    units, size = trace.units, len(trace.units)
    start = np.array([unit.start for unit in units], np.int64)
    dur = np.array([-1 if u.end is None else u.end - u.start for u in units], np.int64)
    thread = np.array([unit.thread for unit in units], np.int64)
    columns = {
        **key_columns(trace, np.arange(size)),
        "span_id": pa.array(np.arange(size) + trace.first_unit),
        "source": constant(SOURCE, size),
        "timeline": constant("host", size),
        "stream": _threads(trace, thread),
        "name": coded(*texts([unit.name for unit in units])),
        "category": constant("unit", size),
        "rule": coded(*texts([unit.mark.rule for unit in units])),
        **interval(trace, start, dur),
    }
    # A file that lost its end lost work of any step: its events are not in the order of time.
    columns["complete"] = pa.array((dur >= 0) & (not trace.cut))
    return pa.table(columns)
