"""Rows of `collectives`: communication kernels, and what NCCL's ranges say about them.

The kernel's name says what it can: operation and data type. (Not algorithm and protocol: NCCL
names a kernel after one of those that it runs.) Where the report holds NCCL's ranges, the one
around the launch says more, and its payload the communicator, size and peer. A group that cannot
be told stays unknown.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pyarrow as pa

from harness_collectors.names.classify import name_forms
from harness_collectors.names.comm_kernels import describe_kernel
from harness_collectors.nsys.export.layouts import Ints
from harness_collectors.nsys.report import nccl
from harness_collectors.nsys.report.work import ANNOTATION, KERNEL, OP
from harness_collectors.nsys.rows.spans import GROUP_ROWS, interval, small
from harness_collectors.nsys.rows.trace import SOURCE, RankTrace, durations
from harness_collectors.traces.columns import coded, constant, known, texts
from harness_collectors.traces.operations import (
    COALESCED,
    FUSED,
    NO_GROUP,
    UNEQUAL,
    UNKNOWN_GROUP,
    canonical_op,
    operation_of_call,
    ordinals,
)
from harness_schemas.spi import Batch

_TOTALS: Final = frozenset({"all_gather", "reduce_scatter", "gather", "scatter"})
"""NCCL is told a rank's part of these; the convention of nccl-tests counts all parts."""


_SEND_RECV: Final = "send, receive or all-to-all: the report does not say"


@dataclass(frozen=True)
class _Part:
    """What a communication row says apart from its times: few differ."""

    op: str | None = None
    group: str | None = None
    size: int | None = None
    src: int | None = None
    dst: int | None = None
    bytes: int | None = None
    reason: str | None = None
    dtype: str | None = None

    @property
    def order_key(self) -> str | None:
        """Among what the row is counted: its group, or its ordered pair; None: nothing."""
        if self.op in ("send", "recv"):
            return None if None in (self.src, self.dst) else f"{self.src}->{self.dst}"
        return None if self.reason in (COALESCED, _SEND_RECV) else self.group


def collective_batches(trace: RankTrace) -> Iterator[Batch]:
    """Communication kernels of one rank."""
    shared, work = trace.shared, trace.device
    kernels = np.unique(work.name[work.kind == KERNEL])
    pairs = [shared.classifier.classify(shared.names[name]) for name in kernels.tolist()]
    communicate = kernels[[category in ("comm", "comm_fused") for category, _ in pairs]]
    rows = np.flatnonzero((work.kind == KERNEL) & np.isin(work.name, communicate))
    if not rows.size:
        return
    by_nccl = np.isin(work.name, kernels[[rule == "nccl" for _, rule in pairs]])
    parts, part = _parts(trace, rows)
    seq = _sequence(trace, parts, part, work.start[rows])
    for first in range(0, len(rows), GROUP_ROWS):
        chosen = slice(first, first + GROUP_ROWS)
        columns = _columns(trace, rows[chosen], parts, part[chosen], seq[chosen])
        blocks = np.where(by_nccl[rows[chosen]], work.blocks[rows[chosen]], -1).astype(np.int32)
        columns["channels"] = small(blocks)  # NCCL launches one block a channel
        yield Batch("collectives", pa.table(columns))


# -- what each row is --------------------------------------------------------------------------


def _parts(trace: RankTrace, rows: Ints) -> tuple[list[_Part], Ints]:
    """Distinct parts, and the part of each row."""
    calls, call = _nccl_calls(trace, rows)
    annotated = _annotations(trace, rows)
    parts: dict[_Part, int] = {}
    known_: dict[tuple[Any, ...], int] = {}
    place = np.empty(len(rows), np.int64)
    names = trace.device.name[rows].tolist()
    for index, (name, number, said) in enumerate(zip(names, call.tolist(), annotated, strict=True)):
        members = calls[number] if number >= 0 else ()
        key = (name, members, said)
        if key not in known_:
            made = _part(trace, trace.shared.names[name], members, said)
            known_[key] = parts.setdefault(made, len(parts))
        place[index] = known_[key]
    return list(parts), place


def _part(
    trace: RankTrace,
    kernel: str,
    calls: tuple[nccl.Call, ...],
    said: str | None,
) -> _Part:
    found = describe_kernel(kernel)
    category, _ = trace.shared.classifier.classify(kernel)
    part = _Part(dtype=found.dtype)
    if calls:
        part = _of_calls(trace, part, calls, said)
    else:
        op = found.op or said
        if op is None and "SendRecv" in name_forms(kernel)["function"]:
            part = replace(part, reason=_SEND_RECV)  # one kernel serves all of them
        part = replace(part, op=op)
    if part.group is None and not trace.shared.own_run:
        # In a run of ours the recorder knows the group: left open, it is filled in later.
        part = replace(part, group=UNKNOWN_GROUP, reason=part.reason or NO_GROUP)
    return replace(part, reason=FUSED) if category == "comm_fused" else part


def _of_calls(
    trace: RankTrace, part: _Part, calls: tuple[nccl.Call, ...], said: str | None
) -> _Part:
    """What the calls that were launched together say: one, or an exchange."""
    first = calls[0]
    comm = trace.shared.comms.get(first.payload.comm) if first.payload.comm is not None else None
    group = comm.name if comm else _named_by_id(first.payload, trace.shared.own_run)
    size = comm.nranks if comm else None
    part = replace(part, group=group, size=size)
    if len(calls) == 1:
        return _of_call(trace, part, first, comm)
    sizes = {call.payload.bytes for call in calls}
    exchange = said == "all_to_all" or _exchanges_with_all(calls, size)
    if not exchange:
        return replace(part, reason=COALESCED)
    sends = [call.payload.bytes for call in calls if call.op == "send"]
    total = sum(n for n in sends if n is not None) if None not in sends else None
    reason = UNEQUAL if len(sizes) > 1 else None
    return replace(part, op="all_to_all", bytes=total or None, reason=reason)


def _of_call(
    trace: RankTrace, part: _Part, call: nccl.Call, comm: nccl.Communicator | None
) -> _Part:
    payload, size = call.payload, part.size
    num_bytes = payload.bytes
    if call.op in _TOTALS and num_bytes is not None:
        num_bytes = num_bytes * size if size else None
    part = replace(part, op=call.op, bytes=num_bytes)
    far = payload.peer if call.op in ("send", "recv") else payload.root
    there = comm.ranks[far] if comm and far is not None and 0 <= far < len(comm.ranks) else None
    if call.op == "recv":
        return replace(part, src=there, dst=trace.rank)
    if call.op == "send":
        return replace(part, src=trace.rank, dst=there)
    return replace(part, src=there)


def _named_by_id(payload: nccl.Payload, own_run: bool) -> str | None:
    """A communicator of unknown members: its id is the same on all of its ranks."""
    return None if payload.comm is None or own_run else f"nccl:{payload.comm:#x}"


def _exchanges_with_all(calls: tuple[nccl.Call, ...], size: int | None) -> bool:
    """Whether a group sends to, and receives from, every rank of its communicator once."""
    peers = {op: [call.payload.peer for call in calls if call.op == op] for op in ("send", "recv")}
    everyone = set(range(size)) if size else None
    complete = all(len(each) == size and set(each) == everyone for each in peers.values())
    return complete and len(calls) == 2 * (size or 0)


# -- around the launch -------------------------------------------------------------------------


def _nccl_calls(trace: RankTrace, rows: Ints) -> tuple[list[tuple[nccl.Call, ...]], Ints]:
    """Groups of calls, and which of them launched each row (-1: none is on record)."""
    host, names = trace.host, trace.shared.names
    is_nccl = np.array([nccl.is_nccl(name) for name in names], np.bool_)
    ranges = np.flatnonzero((host.kind == ANNOTATION) & is_nccl[host.name])
    none = np.full(len(rows), -1, np.int64)
    if not ranges.size:
        return [], none
    ranges = ranges[np.argsort(host.start[ranges], kind="stable")]
    blobs = [trace.payloads.get(row) for row in ranges.tolist()]
    columns = (host.start, host.end, host.thread)
    listed = (column[ranges].tolist() for column in columns)
    texts_ = [names[code] for code in host.name[ranges].tolist()]
    calls = nccl.find_calls(zip(*listed, texts_, blobs, strict=True), trace.shared.schemas)
    if not calls.start:
        return [], none
    interval_rows = first_rows(host.start, host.thread, ranges, calls)
    launched, start, thread = trace.launches(rows)
    call = trace.intervals(interval_rows).locate(start, thread, any_thread=False)
    call = np.where(launched, call, -1)
    return _one_by_one(calls.members, call, trace.device.start[rows])


def first_rows(start: Ints, thread: Ints, ranges: Ints, calls: nccl.Calls) -> Ints:
    """Host rows of the ranges that launch."""
    place = {(s, t): row for s, t, row in zip(
        start[ranges].tolist(), thread[ranges].tolist(), ranges.tolist(), strict=True
    )}  # fmt: skip
    keys = zip(calls.start, calls.thread, strict=True)
    return np.array([place[key] for key in keys], np.int64)


def _one_by_one(
    groups: list[tuple[nccl.Call, ...]], call: Ints, start: Ints
) -> tuple[list[tuple[nccl.Call, ...]], Ints]:
    """Split groups of collectives that were launched as one kernel each."""
    order = np.lexsort((start, call))
    result, place = list(groups), call.copy()
    for number in np.unique(call[call >= 0]).tolist():
        rows = order[call[order] == number]
        members = groups[number]
        if len(members) > 1 and len(members) == len(rows):
            place[rows] = len(result) + np.arange(len(rows))
            result += [(member,) for member in members]
    return result, place


def _annotations(trace: RankTrace, rows: Ints) -> list[str | None]:
    """The operation that a range of torch around each launch names; None: none does."""
    host = trace.host
    ops = [_torch_operation(name) for name in trace.shared.names]
    named = np.array([op is not None for op in ops] or [False], np.bool_)
    is_range = (host.kind == ANNOTATION) | (host.kind == OP)
    ranges = np.flatnonzero(is_range & named[host.name]) if len(host) else np.zeros(0, np.int64)
    if not ranges.size:
        return [None] * len(rows)
    launched, start, thread = trace.launches(rows)
    held = trace.intervals(ranges).locate(start, thread, any_thread=False)
    held = np.where(launched, held, -1)
    return [ops[host.name[ranges[at]]] if at >= 0 else None for at in held.tolist()]


def _torch_operation(name: str) -> str | None:
    """`nccl:all_reduce` and `c10d::allreduce_` -> all_reduce."""
    if name.startswith(("c10d::", "_c10d_functional::", "c10d_functional::")):
        return canonical_op(name.rpartition("::")[2])
    operation = operation_of_call(name)
    return operation.op if operation else None


# -- columns -----------------------------------------------------------------------------------


def _sequence(trace: RankTrace, parts: list[_Part], part: Ints, start: Ints) -> Ints:
    """Ordinals in the group, or in the ordered pair; they go on from report to report."""
    code_of_part, names = texts([each.order_key for each in parts])
    codes = code_of_part[part].astype(np.int64)
    counted = trace.numbering.next_seq
    bases = np.array([counted.get(name, 0) for name in names] or [0], np.int64)
    counts = np.bincount(codes[codes >= 0], minlength=len(names))
    for name, count in zip(names, counts[: len(names)].tolist(), strict=True):
        counted[name] = counted.get(name, 0) + count
    ordinal = ordinals(codes, start)
    return np.where(codes >= 0, ordinal + bases[codes], -1)


def _columns(
    trace: RankTrace, rows: Ints, parts: list[_Part], part: Ints, seq: Ints
) -> dict[str, pa.Array]:
    work, size = trace.device, len(rows)
    take = pa.array(part)
    launched, launch_start, _ = trace.launches(rows)
    length = durations(work.start[rows], work.end[rows])
    times = interval(trace, work.start[rows], work.end[rows])

    def text(values: list[str | None]) -> pa.Array:
        codes, distinct = texts(values)
        return coded(codes[part], distinct)

    def number(values: list[int | None], kind: pa.DataType) -> pa.Array:
        return pa.array(values, kind).take(take)

    return {
        **trace.key_columns(trace.device_units(rows)),
        "span_id": pa.array(rows + trace.first_device),
        "source": constant(SOURCE, size),
        "timeline": constant("device", size),
        "comm_group": text([each.group for each in parts]),
        "seq": known(seq, seq >= 0),
        "op": text([each.op for each in parts]),
        "src_rank": number([each.src for each in parts], pa.int32()),
        "dst_rank": number([each.dst for each in parts], pa.int32()),
        "bytes": number([each.bytes for each in parts], pa.int64()),
        "dtype": text([each.dtype for each in parts]),
        "group_size": number([each.size for each in parts], pa.int32()),
        "enqueue_ns": known(launch_start + trace.offset_ns, launched),
        "start_ns": times["start_ns"],
        "end_ns": times["end_ns"],
        "duration_ns": known(length, length >= 0),
        "unsplit_reason": text([each.reason for each in parts]),
        "kernel": coded(work.name[rows], trace.shared.name_values),
    }
