"""Rows of `collectives` out of one Kineto file, columns at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from harness_collectors.kineto import comm
from harness_collectors.kineto.kinds import ANNOTATION
from harness_collectors.kineto.rows import HOST_COMM
from harness_collectors.kineto.trace import BATCH_ROWS, SOURCE, TraceFile, interval, key_columns
from harness_collectors.traces.columns import coded, constant, known, texts
from harness_collectors.traces.operations import (
    COALESCED,
    FUSED,
    UNEQUAL,
    Operation,
    canonical_op,
    operation_of_call,
    operation_of_kernel,
    ordinals,
)
from harness_collectors.traces.units import Intervals
from harness_schemas.spi import Batch


@dataclass(frozen=True)
class _Part:
    """What a communication row says apart from its times and sizes: few differ."""

    group: comm.Group
    op: str | None
    src: int | None = None
    dst: int | None = None
    dtype: str | None = None
    element: int | None = None
    reason: str | None = None

    @property
    def order_key(self) -> str | None:
        """Among what the row is counted: its group, or its ordered pair; None: nothing."""
        if self.op in ("send", "recv"):
            return None if None in (self.src, self.dst) else f"{self.src}->{self.dst}"
        return None if self.reason == COALESCED else self.group.name


@dataclass(frozen=True)
class _Rows:
    """Communication rows of one timeline: their parts, ordinals (-1: none) and row numbers."""

    parts: list[_Part]
    part: np.ndarray
    seq: np.ndarray
    row: np.ndarray


def collective_batches(trace: TraceFile) -> Iterator[Batch]:
    """Communication kernels, and collectives that the host runs itself."""
    if len(trace.columns.comm):
        rows = _device_rows(trace)
        for first in range(0, len(rows.row), BATCH_ROWS):
            part = slice(first, first + BATCH_ROWS)
            yield Batch("collectives", _device_collectives(trace, rows, part))
    host = _host_rows(trace)
    if host.row.size:
        yield Batch("collectives", _host_collectives(trace, host))


# -- of the device ---------------------------------------------------------------------------


def _device_rows(trace: TraceFile) -> _Rows:
    table, device = trace.columns.comm, trace.columns.device
    row = table.at("row", slice(None))
    calls, call = _enclosing_calls(trace, row)
    codes = (table["label"], device.at("name", row), table["source"], table["target"], call)
    first, part = _distinct(codes)
    labels = list(trace.columns.labels)
    others_named = any(label.op is not None for label in labels)
    fused = _names_of(trace, category="comm_fused")
    parts = []
    for label_code, name, source, target, call_code in zip(
        *(column[first].tolist() for column in codes), strict=True
    ):
        label = labels[label_code]
        group = trace.groups.of(label)
        if label.op is not None:
            operation = Operation(canonical_op(label.op))
        elif call_code >= 0:
            operation = calls[call_code]
        else:
            operation = operation_of_kernel(trace.device_names[name], others_named)
        src, dst = _peers(trace.rank, group, operation, source, target)
        dtype, element = comm.dtype_of(label)
        unequal = UNEQUAL if label.unequal and operation.op == "all_to_all" else None
        reason = FUSED if fused[name] else operation.reason or unequal or group.reason
        parts.append(_Part(group, operation.op, src, dst, dtype, element, reason))
    seq = _sequence(trace, parts, part, device.at("start", row), table.at("sequence", slice(None)))
    return _Rows(parts, part, seq, row)


def _distinct(codes: tuple[np.ndarray, ...]) -> tuple[np.ndarray, np.ndarray]:
    """First row of every distinct combination of codes, and the combination of each row."""
    combined = np.zeros(len(codes[0]), np.int64)
    first = combined
    for column in codes:
        low = int(column.min())
        width = int(column.max()) - low + 1
        _, first, combined = np.unique(
            combined * width + (column.astype(np.int64) - low),
            return_index=True,
            return_inverse=True,
        )
        combined = combined.reshape(-1)
    return first, combined


def _names_of(trace: TraceFile, category: str = "", rule: str = "") -> np.ndarray:
    """Which kernel names are of a category or matched a rule (boolean, by code)."""
    pairs = [trace.columns.classifier.classify(name) for name in trace.device_names]
    return np.array([pair[0] == category or pair[1] == rule for pair in pairs], np.bool_)


def _enclosing_calls(trace: TraceFile, rows: np.ndarray) -> tuple[list[Operation], np.ndarray]:
    """What the host's `nccl:...` annotations do, and which one launched each device row (-1)."""
    host = trace.columns.host
    found = [operation_of_call(name) for name in trace.host_names]
    is_call = np.array([operation is not None for operation in found] or [False], np.bool_)
    annotations = np.flatnonzero(host["kind"] == ANNOTATION)
    calls = annotations[is_call[host.at("name", annotations)]]
    operations = [operation for operation in found if operation is not None]
    if not calls.size:
        return operations, np.full(len(rows), -1, np.int64)
    start, thread = host.at("start", calls), host.at("thread", calls)
    intervals = Intervals(start, start + host.at("dur", calls), thread)
    launched, launch_start, launch_thread = trace.launches(rows)
    held_by = intervals.locate(launch_start, launch_thread, any_thread=False)
    code = np.cumsum(is_call) - 1
    named = code[host.at("name", calls[held_by])]
    return operations, np.where(launched & (held_by >= 0), named, -1)


def _peers(
    rank: int | None, group: comm.Group, operation: Operation, source: int, target: int
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


def _device_collectives(trace: TraceFile, rows: _Rows, part: slice) -> pa.Table:
    table, device = trace.columns.comm, trace.columns.device
    row = rows.row[part]
    name = device.at("name", row)
    launched, launch_start, _ = trace.launches(row)
    channels = np.where(_names_of(trace, rule="nccl")[name], table.at("channels", part), -1)
    num_bytes = _bytes(rows, part, table.at("in_elements", part), table.at("out_elements", part))
    return pa.table(
        {
            **_columns(rows, part, "device"),
            **key_columns(trace, trace.device_units(row)),
            "span_id": pa.array(row + trace.first_device),
            "bytes": known(num_bytes, num_bytes >= 0),
            "enqueue_ns": known(launch_start + trace.offset_ns, launched),
            **_times(trace, device.at("start", row), device.at("dur", row)),
            "kernel": coded(name, trace.coded_device_names),
            "channels": known(channels, channels >= 0, pa.int32()),
        }
    )


def _bytes(
    rows: _Rows, part: slice, in_elements: np.ndarray, out_elements: np.ndarray
) -> np.ndarray:
    """Message sizes by the convention of nccl-tests; -1: unknown."""
    parts = rows.parts
    element = np.array([comm.counted_bytes(p.op, p.element) for p in parts], np.int64)
    gathers = np.array([p.op == "all_gather" for p in parts], np.bool_)
    index = rows.part[part]
    elements = np.where(gathers[index], out_elements, in_elements)
    countable = (elements >= 0) & (element[index] > 0)
    return np.where(countable, elements * element[index], -1)


# -- of the host -----------------------------------------------------------------------------


def _host_rows(trace: TraceFile) -> _Rows:
    host = trace.columns.host
    runs = np.array([n.startswith(HOST_COMM) for n in trace.host_names] or [False], np.bool_)
    row = np.flatnonzero(host["kind"] == ANNOTATION)
    row = row[runs[host.at("name", row)]]
    distinct, part = np.unique(host.at("name", row), return_inverse=True)
    group = trace.groups.unlabelled()
    parts = []
    for name in distinct.tolist():
        operation = operation_of_call(trace.host_names[name]) or Operation(None)
        src, dst = _peers(trace.rank, group, operation, -1, -1)
        reason = operation.reason or group.reason
        parts.append(_Part(group, operation.op, src, dst, reason=reason))
    part = part.reshape(-1)
    return _Rows(parts, part, _sequence(trace, parts, part, host.at("start", row)), row)


def _host_collectives(trace: TraceFile, rows: _Rows) -> pa.Table:
    host = trace.columns.host
    return pa.table(
        {
            **_columns(rows, slice(None), "host"),
            **key_columns(trace, trace.host_units(rows.row)),
            "span_id": pa.array(trace.host_span_ids(rows.row)),
            **_times(trace, host.at("start", rows.row), host.at("dur", rows.row)),
        }
    )


# -- of both ---------------------------------------------------------------------------------


def _sequence(
    trace: TraceFile,
    parts: list[_Part],
    part: np.ndarray,
    start: np.ndarray,
    recorded: np.ndarray | None = None,
) -> np.ndarray:
    """Ordinals in the group, or in the ordered pair; they go on from file to file of a rank.

    Where the file has torch's own sequence numbers of a group (`recorded`, from kineto of 2026)
    these are taken: they agree even over recordings that began at different moments.
    """
    code_of_part, names = texts([each.order_key for each in parts])
    codes = code_of_part[part]
    ordinal = ordinals(codes, start)
    counted = trace.numbering.next_seq
    for code, name in enumerate(names):
        rows = np.flatnonzero(codes == code)
        if recorded is not None and name.startswith("[") and _rises(recorded[rows], start[rows]):
            ordinal[rows] = recorded[rows]
            continue
        base = counted.get(name, 0)
        ordinal[rows] += base
        counted[name] = base + len(rows)
    return ordinal


def _rises(recorded: np.ndarray, start: np.ndarray) -> bool:
    """Whether sequence numbers are all there and rise with time."""
    ordered = recorded[np.argsort(start, kind="stable")]
    return bool((ordered >= 0).all() and (np.diff(ordered) > 0).all())


def _columns(rows: _Rows, part: slice, timeline: str) -> dict[str, pa.Array]:
    index = rows.part[part]
    seq = rows.seq[part]
    take = pa.array(index)
    parts = rows.parts

    def text(values: list[str | None]) -> pa.Array:
        codes, distinct = texts(values)
        return coded(codes[index], distinct)

    def number(values: list[int | None]) -> pa.Array:
        return pa.array(values, pa.int32()).take(take)

    return {
        "source": constant(SOURCE, len(index)),
        "timeline": constant(timeline, len(index)),
        "comm_group": text([each.group.name for each in parts]),
        "seq": known(seq, seq >= 0),
        "op": text([each.op for each in parts]),
        "src_rank": number([each.src for each in parts]),
        "dst_rank": number([each.dst for each in parts]),
        "dtype": text([each.dtype for each in parts]),
        "group_size": number([each.group.size for each in parts]),
        "unsplit_reason": text([each.reason for each in parts]),
    }


def _times(trace: TraceFile, start: np.ndarray, dur: np.ndarray) -> dict[str, pa.Array]:
    times = interval(trace, start, dur)
    return {
        "start_ns": times["start_ns"],
        "end_ns": times["end_ns"],
        "duration_ns": known(dur, dur >= 0),
    }
