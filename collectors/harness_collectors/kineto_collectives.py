"""Rows of `collectives` out of one Kineto file, columns at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from harness_collectors import kineto_comm as comm
from harness_collectors.kineto_events import ANNOTATION
from harness_collectors.kineto_rows import HOST_COMM
from harness_collectors.kineto_trace import (
    SOURCE,
    TraceFile,
    coded,
    constant,
    interval,
    key_columns,
    known,
)
from harness_collectors.kineto_units import Intervals
from harness_schemas.spi import Batch


@dataclass(frozen=True)
class _Part:
    """What one kind of communication row says, once for all rows that look alike."""

    group: comm.Group
    op: str | None
    src: int | None
    dst: int | None
    dtype: str | None
    element: int | None
    reason: str | None


def collective_batches(trace: TraceFile) -> Iterator[Batch]:
    """Communication kernels, and collectives that the host runs itself."""
    if len(trace.columns.comm):
        yield Batch("collectives", _device_collectives(trace))
    rows = _host_collective_rows(trace)
    if rows.size:
        yield Batch("collectives", _host_collectives(trace, rows))


def _device_collectives(trace: TraceFile) -> pa.Table:
    table, device = trace.columns.comm, trace.columns.device
    rows = table["row"]
    parts, part_of = _device_parts(trace)
    launched, launch = trace.launched[rows], trace.launch_start[rows] + trace.offset_ns
    name = device["name"][rows]
    channels = np.where(_is_nccl(trace)[name], table["channels"], -1)
    return pa.table(
        {
            "rank": constant(trace.rank, len(rows), pa.int32()),
            **key_columns(trace, trace.device_unit[rows]),
            "span_id": pa.array(rows + trace.first_device),
            "source": constant(SOURCE, len(rows), pa.string()),
            "timeline": constant("device", len(rows), pa.string()),
            **_part_columns(trace, parts, part_of, device["start"][rows]),
            "bytes": _bytes(parts, part_of, table["in_elements"], table["out_elements"]),
            "enqueue_ns": known(launch, launched),
            **_collective_times(trace, device["start"][rows], device["dur"][rows]),
            "kernel": coded(name, trace.device_names),
            "channels": known(channels, channels >= 0, pa.int32()),
        }
    )


def _is_nccl(trace: TraceFile) -> np.ndarray:
    classify = trace.columns.classifier.classify
    return np.array([classify(name)[1] == "nccl" for name in trace.device_names], np.bool_)


def _device_parts(trace: TraceFile) -> tuple[list[_Part], np.ndarray]:
    """The distinct parts, and the part of each row of `comm`."""
    table = trace.columns.comm
    labels = list(trace.columns.labels)
    calls, call_of = _enclosing_calls(trace, table["row"])
    others_named = any(label.op is not None for label in labels)
    columns = (
        table["label"], trace.columns.device["name"][table["row"]],
        table["source"], table["target"], call_of,
    )  # fmt: skip
    distinct, part_of = np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)
    fused = {
        code
        for code, name in enumerate(trace.device_names)
        if trace.columns.classifier.classify(name)[0] == "comm_fused"
    }
    parts = []
    for label_code, name, source, target, call in distinct.tolist():
        label = labels[label_code]
        group = trace.groups.of(label)
        if label.op is not None:
            operation = comm.Operation(comm.canonical_op(label.op))
        elif call >= 0:
            operation = calls[call]
        else:
            operation = comm.operation_of_kernel(trace.device_names[name], others_named)
        src, dst = _peers(trace.rank, group, operation, source, target)
        dtype, element = comm.dtype_of(label)
        reason = (
            (comm.FUSED if name in fused else None)
            or operation.reason
            or comm.split_reason(label, operation.op)
            or group.reason
        )
        parts.append(_Part(group, operation.op, src, dst, dtype, element, reason))
    return parts, part_of.reshape(-1)


def _enclosing_calls(trace: TraceFile, rows: np.ndarray) -> tuple[list[comm.Operation], np.ndarray]:
    """The host's `nccl:...` annotations, and which of them launched each device row (-1)."""
    host = trace.columns.host
    operations = [comm.operation_of_call(name) for name in trace.host_names]
    is_call = np.array([operation is not None for operation in operations] or [False], np.bool_)
    calls = np.flatnonzero((host["kind"] == ANNOTATION) & is_call[host["name"]])
    distinct = [operation for operation in operations if operation is not None]
    if not calls.size:
        return distinct, np.full(len(rows), -1, np.int64)
    start, thread = host["start"], host["thread"]
    intervals = Intervals(start[calls], start[calls] + host["dur"][calls], thread[calls])
    launch = trace.launch[rows]
    found = intervals.locate(start[launch], thread[launch], any_thread=False)
    place = np.cumsum(is_call) - 1
    named = place[host["name"][calls[found]]]
    return distinct, np.where((found >= 0) & trace.launched[rows], named, -1)


def _peers(
    rank: int | None, group: comm.Group, operation: comm.Operation, source: int, target: int
) -> tuple[int | None, int | None]:
    """Global ranks of sender and receiver; the arguments name the far side."""
    if operation.op not in ("send", "recv"):
        return None, None
    sends = operation.op == "send"
    src = rank if sends else (source if source >= 0 else None)
    dst = (target if target >= 0 else None) if sends else rank
    pair = operation.peers
    if pair is not None and group.ranks and max(pair) < len(group.ranks):
        src = group.ranks[pair[0]] if src is None else src
        dst = group.ranks[pair[1]] if dst is None else dst
    return src, dst


def _part_columns(
    trace: TraceFile, parts: list[_Part], part_of: np.ndarray, start: np.ndarray
) -> dict[str, pa.Array]:
    index = pa.array(part_of)

    def taken(values: list[Any], kind: pa.DataType) -> pa.Array:
        return pa.array(values, kind).take(index)

    return {
        "comm_group": taken([part.group.name for part in parts], pa.string()),
        "seq": _sequence(trace, parts, part_of, start),
        "op": taken([part.op for part in parts], pa.string()),
        "src_rank": taken([part.src for part in parts], pa.int32()),
        "dst_rank": taken([part.dst for part in parts], pa.int32()),
        "dtype": taken([part.dtype for part in parts], pa.string()),
        "group_size": taken([part.group.size for part in parts], pa.int32()),
        "unsplit_reason": taken([part.reason for part in parts], pa.string()),
    }


def _sequence(
    trace: TraceFile, parts: list[_Part], part_of: np.ndarray, start: np.ndarray
) -> pa.Array:
    """Ordinals in the group, or in the ordered pair; they go on from file to file of a rank."""
    keys = [_order_key(part) for part in parts]
    names = list(dict.fromkeys(key for key in keys if key is not None))
    codes = np.array([-1 if key is None else names.index(key) for key in keys], np.int64)[part_of]
    ordinal = comm.ordinals(codes, start)
    counted = trace.numbering.next_seq
    bases = np.array([counted.get(name, 0) for name in names] or [0], np.int64)
    for code, name in enumerate(names):
        counted[name] = counted.get(name, 0) + int((codes == code).sum())
    return known(ordinal + bases[codes], codes >= 0)


def _order_key(part: _Part) -> str | None:
    if part.op in ("send", "recv"):
        return None if None in (part.src, part.dst) else f"{part.src}->{part.dst}"
    return None if part.reason == comm.COALESCED else part.group.name


def _bytes(
    parts: list[_Part], part_of: np.ndarray, in_elements: np.ndarray, out_elements: np.ndarray
) -> pa.Array:
    size = np.full(len(part_of), -1, np.int64)
    for code, part in enumerate(parts):
        if comm.message_bytes(part.op, part.element, 0, 0) is None:
            continue
        rows = np.flatnonzero(part_of == code)
        elements = (out_elements if part.op == "all_gather" else in_elements)[rows]
        size[rows] = np.where(elements >= 0, elements * (part.element or 0), -1)
    return known(size, size >= 0)


def _collective_times(trace: TraceFile, start: np.ndarray, dur: np.ndarray) -> dict[str, pa.Array]:
    times = interval(trace, start, dur)
    return {
        "start_ns": times["start_ns"],
        "end_ns": times["end_ns"],
        "duration_ns": known(dur, dur >= 0),
    }


def _host_collective_rows(trace: TraceFile) -> np.ndarray:
    """Places in `host_rows` of annotations of collectives that the host runs."""
    host = trace.columns.host
    runs = np.array([n.startswith(HOST_COMM) for n in trace.host_names] or [False], np.bool_)
    rows = trace.host_rows
    return np.flatnonzero((host["kind"][rows] == ANNOTATION) & runs[host["name"][rows]])


def _host_collectives(trace: TraceFile, places: np.ndarray) -> pa.Table:
    host, rows = trace.columns.host, trace.host_rows[places]
    group = trace.groups.unlabelled()
    distinct, part_of = np.unique(host["name"][rows], return_inverse=True)
    parts = []
    for name in distinct.tolist():
        operation = comm.operation_of_call(trace.host_names[name]) or comm.Operation(None)
        src, dst = _peers(trace.rank, group, operation, -1, -1)
        reason = operation.reason or group.reason
        parts.append(_Part(group, operation.op, src, dst, None, None, reason))
    start = host["start"][rows]
    return pa.table(
        {
            "rank": constant(trace.rank, len(rows), pa.int32()),
            **key_columns(trace, trace.host_unit[places]),
            "span_id": pa.array(places + trace.first_host),
            "source": constant(SOURCE, len(rows), pa.string()),
            "timeline": constant("host", len(rows), pa.string()),
            **_part_columns(trace, parts, part_of.reshape(-1), start),
            **_collective_times(trace, start, host["dur"][rows]),
        }
    )
