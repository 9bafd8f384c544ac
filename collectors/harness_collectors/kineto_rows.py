"""Rows of `spans` and `steps` out of one Kineto file, columns at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from harness_collectors.kineto_events import ANNOTATION, KINDS, OP
from harness_collectors.kineto_trace import (
    TraceFile,
    coded,
    common,
    constant,
    interval,
    key_columns,
    known,
)
from harness_collectors.kineto_units import Unit
from harness_collectors.step_marks import SIZE_GROUPS
from harness_schemas.spi import Batch

BATCH_ROWS: Final = 1 << 16
HOST_COMM: Final = ("gloo:", "mpi:", "ucc:")
"""Annotations of collectives that the host itself runs; `nccl:` ones only launch."""


def span_batches(trace: TraceFile) -> Iterator[Batch]:
    """Units, device work, then the host's rows."""
    if trace.units:
        yield Batch("spans", _unit_spans(trace))
    device, host = _Classes(trace.device_names), _Classes(trace.host_names)
    _classify_device(trace, device)
    _classify_host(trace, host)
    for first in range(0, len(trace.columns.device), BATCH_ROWS):
        yield Batch("spans", _device_spans(trace, device, slice(first, first + BATCH_ROWS)))
    for first in range(0, len(trace.host_rows), BATCH_ROWS):
        yield Batch("spans", _host_spans(trace, host, slice(first, first + BATCH_ROWS)))


class _Classes:
    """Category and rule of every (kind, name) met, as codes."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self._pairs: dict[tuple[str, str], int] = {}
        self._table = np.full((len(KINDS), len(names) or 1), -1, np.int32)

    def set(self, kind: int, name: int, pair: tuple[str, str]) -> None:
        """Book a name of a kind."""
        self._table[kind, name] = self.code(pair)

    def code(self, pair: tuple[str, str]) -> int:
        """The code of a (category, rule)."""
        return self._pairs.setdefault(pair, len(self._pairs))

    def of(self, kind: np.ndarray, name: np.ndarray) -> np.ndarray:
        """Codes of rows."""
        found: np.ndarray = self._table[kind, name]
        return found

    def columns(self, codes: np.ndarray) -> dict[str, pa.Array]:
        """`category` and `rule` of rows by their codes."""
        pairs = list(self._pairs)
        columns = {}
        for place, column in enumerate(("category", "rule")):
            values = list(dict.fromkeys(pair[place] for pair in pairs))
            of_pair = np.array([values.index(pair[place]) for pair in pairs] or [-1], np.int32)
            columns[column] = coded(of_pair[codes], values)
        return columns


def _present(kind: np.ndarray, name: np.ndarray) -> list[tuple[int, int]]:
    """Which (kind, name) occur."""
    both = np.unique(kind.astype(np.int64) << 32 | name)
    return [(int(value >> 32), int(value & 0xFFFFFFFF)) for value in both.tolist()]


def _classify_device(trace: TraceFile, classes: _Classes) -> None:
    device, classifier = trace.columns.device, trace.columns.classifier
    for kind, name in _present(device["kind"], device["name"]):
        classes.set(kind, name, classifier.classify(classes.names[name], KINDS[kind]))


def _classify_host(trace: TraceFile, classes: _Classes) -> None:
    """On a trace without device work operators compute; beside a device they only launch."""
    host, classifier = trace.columns.host, trace.columns.classifier
    for kind, name in _present(host["kind"], host["name"]):
        text, what = classes.names[name], KINDS[kind]
        if kind == OP and trace.has_device:
            what = "host_op"
        if kind == ANNOTATION and text.startswith(HOST_COMM):
            what = "op"
        classes.set(kind, name, classifier.classify(text, what))


def _device_spans(trace: TraceFile, classes: _Classes, part: slice) -> pa.Table:
    columns = trace.columns.device
    start = columns["start"][part]
    size = len(start)
    device, stream = columns["device"][part], columns["stream"][part]
    correlation, graph = columns["correlation"][part], columns["graph"][part]
    num_bytes = columns["bytes"][part]
    launched = trace.launched[part]
    return pa.table(
        {
            **common(trace, size, "device"),
            **key_columns(trace, trace.device_unit[part]),
            "span_id": pa.array(np.arange(size) + trace.first_device + part.start),
            "device": known(device, device >= 0),
            "stream": known(stream, stream >= 0),
            "name": coded(columns["name"][part], trace.device_names),
            **classes.columns(classes.of(columns["kind"][part], columns["name"][part])),
            **interval(trace, start, columns["dur"][part]),
            "launch_ns": known(trace.launch_start[part] + trace.offset_ns, launched),
            "correlation": known(correlation, correlation >= 0),
            "graph_id": known(graph, graph > 0),
            "bytes": known(num_bytes, num_bytes >= 0),
            "attrs": _launch_attrs(trace, part),
        }
    )


def _launch_attrs(trace: TraceFile, part: slice) -> pa.Array:
    """Device work of a CUDA graph says so where the file gives the graph no id."""
    size = len(trace.launched[part])
    if not size or not len(trace.columns.host):
        return pa.nulls(size, pa.string())
    is_graph = np.array(["GraphLaunch" in name for name in trace.host_names], np.bool_)
    replayed = trace.launched[part] & is_graph[trace.columns.host["name"][trace.launch[part]]]
    return coded(np.where(replayed, 0, -1), [json.dumps({"graph_launch": True})])


def _host_spans(trace: TraceFile, classes: _Classes, part: slice) -> pa.Table:
    rows = trace.host_rows[part]
    columns = trace.columns.host
    thread, correlation = columns["thread"][rows], columns["correlation"][rows]
    unit = trace.host_unit[part]
    codes = classes.of(columns["kind"][rows], columns["name"][rows])
    for place, row in enumerate(rows.tolist()) if trace.found.phases else ():
        rule = trace.found.phases.get(row)
        if rule is not None:
            codes[place] = classes.code(("phase", rule))
    return pa.table(
        {
            **common(trace, len(rows), "host"),
            **key_columns(trace, unit),
            "span_id": pa.array(np.arange(len(rows)) + trace.first_host + part.start),
            "parent_id": known(unit + trace.first_unit, unit >= 0),
            "stream": known(thread, thread >= 0),
            "name": coded(columns["name"][rows], trace.host_names),
            **classes.columns(codes),
            **interval(trace, columns["start"][rows], columns["dur"][rows]),
            "correlation": known(correlation, correlation >= 0),
        }
    )


def _unit_spans(trace: TraceFile) -> pa.Table:
    units = trace.units
    size = len(units)
    start = np.array([unit.start for unit in units], np.int64)
    dur = np.array([-1 if u.end is None else u.end - u.start for u in units], np.int64)
    thread = np.array([unit.thread for unit in units], np.int64)
    # A file that lost its end lost work of any step: its events are not in the order of time.
    whole = (dur >= 0) & (not trace.cut)
    rows = {
        **common(trace, size, "host"),
        **key_columns(trace, np.arange(size)),
        "span_id": pa.array(np.arange(size) + trace.first_unit),
        "stream": known(thread, thread >= 0),
        "name": pa.array([unit.name for unit in units], pa.string()),
        "category": constant("unit", size, pa.string()),
        "rule": pa.array([unit.mark.rule for unit in units], pa.string()),
        **interval(trace, start, dur),
    }
    rows["complete"] = pa.array(whole)
    return pa.table(rows)


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
