"""Rows of `spans` and `collectives` from records: columns at a time, never a span at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from harness_collectors.app_timers.meta_rows import BOOL, I32, KEY_FIELDS, STR
from harness_collectors.app_timers.spool import GRAPH_SOURCE, SOURCE, RankMeta
from harness_schemas import spool
from harness_schemas.spi import Batch

_P2P = ("send", "recv")
_COMMUNICATION = (spool.KIND_COLLECTIVE, spool.KIND_P2P)


@dataclass
class Counts:
    """Running totals over a rank's chunks."""

    records: int = 0
    closed_units: set[int] = field(default_factory=set)
    last_end_ns: int = 0


class _Lookup:
    """Turns small ids into columns: a table of all ids is built once, rows are taken from it.

    Strings stay dictionary-encoded, so that a chunk of a quarter of a million spans does not
    carry a quarter of a million copies of "all_reduce".
    """

    def __init__(self, ids: np.ndarray, largest: int) -> None:
        # Ids count from 1; what a torn file makes of them falls on 0, which defines nothing.
        self.ids = np.where((ids >= 0) & (ids <= largest), ids, 0)
        self.largest = largest

    def column(self, pick: Any, kind: pa.DataType) -> pa.Array:
        """`pick(id)` for every row, with one Python call an id."""
        values = [pick(key) for key in range(self.largest + 1)]
        if not pa.types.is_string(kind):
            return pa.array(values, type=kind).take(pa.array(self.ids))
        # Arrow does not join dictionaries that hold a NULL.
        unknown = np.array([value is None for value in values], np.bool_)
        codes = pa.array(self.ids.astype(np.int32), mask=unknown[self.ids])
        table = pa.array([value or "" for value in values], type=kind)
        return pa.DictionaryArray.from_arrays(codes, table)


def _describe(meta: RankMeta, records: np.ndarray) -> _Lookup:
    return _Lookup(records[:, 0] & 0xFFFFFFFF, max(meta.descriptors, default=0))


def _is(lookup: _Lookup, meta: RankMeta, field_name: str, *values: object) -> np.ndarray:
    """Which rows' descriptors hold one of these values."""
    known = meta.descriptors
    member = [known.get(k, {}).get(field_name) in values for k in range(lookup.largest + 1)]
    return np.array(member)[lookup.ids]


def _source(describe: _Lookup, meta: RankMeta) -> pa.Array:
    return describe.column(lambda k: meta.descriptors.get(k, {}).get("source") or SOURCE, STR)


def _nullable(values: np.ndarray, valid: np.ndarray) -> pa.Array:
    return pa.array(values, mask=~valid)


def record_batches(meta: RankMeta, records: np.ndarray, counts: Counts) -> Iterator[Batch]:
    """Spans, and collectives among them, of one chunk of records."""
    if len(records) == 0:
        return
    counts.records += len(records)
    counts.last_end_ns = max(counts.last_end_ns, int(records[:, 5].max()))
    kinds = (records[:, 0] >> 40) & 0xFF
    counts.closed_units.update(np.unique(records[kinds == spool.KIND_UNIT, 3]).tolist())
    yield Batch("spans", _spans(meta, records, kinds))
    chosen = np.isin(kinds, _COMMUNICATION)
    if chosen.any():
        yield Batch("collectives", _collectives(meta, records[chosen]))
    yield from _graph_calls(meta, records[kinds == spool.KIND_DEVICE])


def _keys(meta: RankMeta, unit_ids: np.ndarray) -> dict[str, pa.Array]:
    lookup = _Lookup(unit_ids, max(meta.units, default=0))
    kinds = {"phase": STR, "perturbed_by": STR, "warmup": BOOL}
    return {
        name: lookup.column(
            lambda unit, name=name: meta.units.get(unit, {}).get(name), kinds.get(name, I32)
        )
        for name in KEY_FIELDS
    }


def _spans(meta: RankMeta, records: np.ndarray, kinds: np.ndarray) -> pa.Table:
    size = len(records)
    describe = _describe(meta, records)

    def described(name: str, kind: pa.DataType = STR) -> pa.Array:
        return describe.column(lambda key: meta.descriptors.get(key, {}).get(name), kind)

    # `extra` names attributes only where it is not the time a communication was issued.
    attrs = _Lookup(
        np.where(np.isin(kinds, _COMMUNICATION), 0, records[:, 11]), max(meta.attrs, default=0)
    )
    # On the device timeline these words hold the host's call, not CPU time.
    on_device = _is(describe, meta, "timeline", "device")
    has_cpu = (records[:, 6] >= 0) & ~on_device
    start = pa.array(records[:, 4])
    return pa.table(
        {
            "rank": pa.array(np.full(size, meta.rank, dtype=np.int32)),
            **_keys(meta, records[:, 3]),
            "span_id": pa.array(records[:, 1]),
            "parent_id": _nullable(records[:, 2], records[:, 2] > 0),
            "source": _source(describe, meta),
            "timeline": described("timeline"),
            "stream": pa.array((records[:, 0] >> 32) & 0xFF),
            "name": described("name"),
            "category": described("category"),
            "layer": described("layer", I32),
            "start_ns": start,
            "end_ns": pa.array(records[:, 5]),
            "raw_start_ns": start,
            "launch_ns": _nullable(records[:, 6], on_device),
            "cpu_start_ns": _nullable(records[:, 6], has_cpu),
            "cpu_ns": _nullable(records[:, 7] - records[:, 6], has_cpu),
            "bytes": _nullable(records[:, 8], records[:, 8] >= 0),
            "complete": pa.array(np.ones(size, dtype=bool)),
            "attrs": attrs.column(lambda key: _attrs_text(meta, key), STR),
        }
    )


def _attrs_text(meta: RankMeta, key: int) -> str | None:
    found = meta.attrs.get(key)
    return json.dumps(found.get("attrs", {}), sort_keys=True) if found else None


def _collectives(meta: RankMeta, records: np.ndarray) -> pa.Table:
    size = len(records)
    describe = _describe(meta, records)
    groups = _Lookup(records[:, 9] >> 32, max(meta.groups, default=0))
    op = describe.column(lambda key: meta.descriptors.get(key, {}).get("op"), STR)
    peer = (records[:, 9] & 0xFFFFFFFF) - 1

    def is_op(*names: str) -> np.ndarray:
        return _is(describe, meta, "op", *names)

    mine = np.full(size, meta.rank, dtype=np.int64)
    # A rooted operation keeps its root where a point-to-point call keeps its peer.
    source_rank = np.where(is_op("send"), mine, peer)
    target_rank = np.where(is_op("recv"), mine, peer)
    has_source = is_op("send", "recv", "broadcast", "scatter") & (peer >= 0)
    has_target = is_op("send", "recv", "reduce", "gather") & (peer >= 0)
    on_device = _is(describe, meta, "timeline", "device")
    enqueue = np.where(records[:, 11] > 0, records[:, 11], records[:, 4])
    enqueue = np.where(on_device, records[:, 6], enqueue)
    start = pa.array(records[:, 4])
    length = records[:, 5] - records[:, 4]
    gap = _stamp_gap(meta)
    stamped = _is(describe, meta, "source", GRAPH_SOURCE) & (gap is not None)
    posted = on_device & _is(describe, meta, "posted", True)
    return pa.table(
        {
            "rank": pa.array(mine.astype(np.int32)),
            **_keys(meta, records[:, 3]),
            "span_id": pa.array(records[:, 1]),
            "source": _source(describe, meta),
            "timeline": describe.column(
                lambda key: meta.descriptors.get(key, {}).get("timeline"), STR
            ),
            "comm_group": groups.column(meta.group_name, STR),
            "seq": _nullable(records[:, 10], records[:, 10] >= 0),
            "op": op,
            "src_rank": _nullable(source_rank.astype(np.int32), has_source),
            "dst_rank": _nullable(target_rank.astype(np.int32), has_target),
            "bytes": _nullable(records[:, 8], records[:, 8] >= 0),
            "dtype": describe.column(lambda key: meta.descriptors.get(key, {}).get("dtype"), STR),
            "group_size": groups.column(lambda key: len(meta.group_ranks(key)) or None, I32),
            "enqueue_ns": pa.array(enqueue),
            "start_ns": start,
            "end_ns": pa.array(records[:, 5]),
            "duration_ns": pa.array(length),
            "low_ns": _nullable(np.maximum(0, length - (gap or 0)), stamped),
            "return_ns": _nullable(records[:, 7], on_device & ~posted),
            "unsplit_reason": pa.array([None, POSTED], type=STR).take(
                pa.array(posted.astype(np.int8))
            ),
        }
    )


POSTED = "posted: its interval is what the stream waited for it"
HAND_OVER_NS = 5_000
"""How long a kernel of NCCL's took at most to begin after a stamp and to be followed by one, beyond
what a kernel without communication takes (on H200s 1.6 to 3.1 us, once in a hundred 4.1, once in
six hundred 4.4: docs/performance.md)."""


def _stamp_gap(meta: RankMeta) -> int | None:
    """By how much a duration between stamps inside a graph may be too long."""
    gaps = [row["gap_ns"] for row in meta.rows.get("graph_clock", []) if row.get("gap_ns")]
    return max(gaps) + HAND_OVER_NS if gaps else None


def _graph_calls(meta: RankMeta, records: np.ndarray) -> Iterator[Batch]:
    """Communication inside replays of clean graphs: known to have happened, without times."""
    descriptors = (records[:, 0] & 0xFFFFFFFF).tolist()
    for graph in meta.rows.get("graph", []):
        calls = graph.get("calls") or []
        replays = [
            meta.descriptors.get(key, {}).get("graph") == graph.get("id")
            and meta.descriptors[key].get("source") != GRAPH_SOURCE
            for key in descriptors
        ]
        chosen = records[np.array(replays, dtype=bool)] if replays else records[:0]
        if len(chosen) and calls:
            yield Batch("collectives", _expand(meta, chosen, calls))


def _expand(meta: RankMeta, replays: np.ndarray, calls: list[list[Any]]) -> pa.Table:
    """One row a replay and call; `enqueue_ns` keeps the order of the calls within a replay."""
    count, size = len(replays), len(replays) * len(calls)
    rows = np.repeat(np.arange(count), len(calls))
    order = np.tile(np.arange(len(calls)), count)

    def each(values: list[Any], kind: pa.DataType) -> pa.Array:
        return pa.array(values, type=kind).take(pa.array(order))

    ops = [call[0] for call in calls]
    peers = [call[2] if call[2] >= 0 else None for call in calls]
    source = [meta.rank if op == "send" else peer for op, peer in zip(ops, peers, strict=True)]
    target = [meta.rank if op == "recv" else peer for op, peer in zip(ops, peers, strict=True)]
    return pa.table(
        {
            "rank": pa.array(np.full(size, meta.rank, dtype=np.int32)),
            **_keys(meta, replays[rows, 3]),
            "source": pa.array([SOURCE]).take(pa.array(np.zeros(size, dtype=np.int64))),
            "timeline": pa.array(["device"]).take(pa.array(np.zeros(size, dtype=np.int64))),
            "comm_group": each([meta.group_name(call[1]) for call in calls], STR),
            "op": each(ops, STR),
            "src_rank": each(
                [s if op in _P2P else None for s, op in zip(source, ops, strict=True)], I32
            ),
            "dst_rank": each(
                [t if op in _P2P else None for t, op in zip(target, ops, strict=True)], I32
            ),
            "bytes": each([call[3] if call[3] >= 0 else None for call in calls], pa.int64()),
            "dtype": each([call[4] for call in calls], STR),
            "group_size": each([len(meta.group_ranks(call[1])) or None for call in calls], I32),
            "enqueue_ns": pa.array(replays[rows, 6] + order),
            "unsplit_reason": each(
                ["inside a CUDA graph that was not instrumented"] * len(calls), STR
            ),
        }
    )
