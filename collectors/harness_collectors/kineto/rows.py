"""Rows of `spans` and `steps` out of one Kineto file, columns at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import pyarrow as pa

from harness_collectors.kineto.kinds import ANNOTATION, KINDS, OP
from harness_collectors.kineto.trace import (
    BATCH_ROWS,
    SOURCE,
    TraceFile,
    coded,
    constant,
    interval,
    key_columns,
    known,
    rank_column,
    texts,
)
from harness_collectors.kineto.units import Unit
from harness_collectors.names.step_marks import SIZE_GROUPS
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


class _Classes:
    """Category and rule of every (kind, name) met, asked for once."""

    def __init__(self, num_names: int, classify: Callable[[int, int], tuple[str, str]]) -> None:
        self._pairs: dict[tuple[str, str], int] = {}
        self._table = np.full((len(KINDS), num_names or 1), -1, np.int32)
        self._classify = classify

    def code(self, pair: tuple[str, str]) -> int:
        """The code of a (category, rule)."""
        return self._pairs.setdefault(pair, len(self._pairs))

    def of(self, kind: np.ndarray, name: np.ndarray) -> np.ndarray:
        """Codes of rows."""
        codes: np.ndarray = self._table[kind, name]
        new = codes < 0
        if new.any():
            pairs = np.unique(kind[new].astype(np.int64) << 32 | name[new])
            for pair in pairs.tolist():
                what, text = pair >> 32, pair & 0xFFFFFFFF
                self._table[what, text] = self.code(self._classify(what, text))
            codes = self._table[kind, name]
        return codes

    def columns(self, codes: np.ndarray) -> dict[str, pa.Array]:
        """`category` and `rule` of rows by their codes."""
        columns = {}
        for place, column in enumerate(("category", "rule")):
            of_pair, values = texts([pair[place] for pair in self._pairs])
            columns[column] = coded(of_pair[codes], values)
        return columns


def _device_classes(trace: TraceFile) -> _Classes:
    names, classify = trace.device_names, trace.columns.classifier.classify
    return _Classes(len(names), lambda kind, name: classify(names[name], KINDS[kind]))


def _host_classes(trace: TraceFile) -> _Classes:
    """On a trace without device work operators compute; beside a device they only launch."""
    names, classify = trace.host_names, trace.columns.classifier.classify

    def of(kind: int, name: int) -> tuple[str, str]:
        what = KINDS[kind]
        if kind == OP and trace.has_device:
            what = "host_op"
        if kind == ANNOTATION and names[name].startswith(HOST_COMM):
            what = "op"
        return classify(names[name], what)

    return _Classes(len(names), of)


def _device_spans(trace: TraceFile, classes: _Classes, rows: np.ndarray) -> pa.Table:
    columns, size = trace.columns.device, len(rows)
    stream, graph = columns.at("stream", rows), columns.at("graph", rows)
    device, correlation = columns.at("device", rows), columns.at("correlation", rows)
    num_bytes, name = columns.at("bytes", rows), columns.at("name", rows)
    launched, launch_start, _ = trace.launches(rows)
    unit = trace.device_units(rows)
    trace.device_rows_in_units += int((unit >= 0).sum())
    return pa.table(
        {
            "rank": rank_column(trace, size),
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


def _host_spans(trace: TraceFile, classes: _Classes, rows: np.ndarray) -> pa.Table:
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
            "rank": rank_column(trace, size),
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
        "rank": rank_column(trace, size),
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


def step_rows(trace: TraceFile) -> list[dict[str, Any]]:
    """Rows of `steps` for units whose annotation gives sizes."""
    return [
        {"rank": trace.rank, **_unit_key(unit), **dict(zip(SIZE_GROUPS, sizes, strict=True))}
        for unit in trace.units
        if (sizes := unit.mark.sizes)
    ]


def _unit_key(unit: Unit) -> dict[str, Any]:
    mark = unit.mark
    return {
        "batch": unit.batch,
        "microbatch": mark.microbatch,
        "repeat": mark.repeat,
        "phase": mark.phase,
        "step": unit.step,
        "warmup": mark.warmup,
    }
