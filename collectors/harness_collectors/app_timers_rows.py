"""Rows of the tables, made from a rank's spool: columns at a time, never a span at a time."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from harness_collectors.app_timers import SOURCE, RankMeta, SpoolFile
from harness_schemas import spool
from harness_schemas.spi import Batch

KEY_FIELDS = ("batch", "microbatch", "repeat", "phase", "step", "warmup", "perturbed_by")
_I64, _I32, _STR, _BOOL, _F64 = pa.int64(), pa.int32(), pa.string(), pa.bool_(), pa.float64()
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
        table = pa.array([pick(key) for key in range(self.largest + 1)], type=kind)
        if pa.types.is_string(kind):
            return pa.DictionaryArray.from_arrays(pa.array(self.ids.astype(np.int32)), table)
        return table.take(pa.array(self.ids))


def _constant(text: str, size: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(
        pa.array(np.zeros(size, dtype=np.int32)), pa.array([text])
    )


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


def _keys(meta: RankMeta, unit_ids: np.ndarray) -> dict[str, pa.Array]:
    lookup = _Lookup(unit_ids, max(meta.units, default=0))
    kinds = {"phase": pa.string(), "perturbed_by": pa.string(), "warmup": pa.bool_()}
    return {
        name: lookup.column(
            lambda unit, name=name: meta.units.get(unit, {}).get(name), kinds.get(name, pa.int32())
        )
        for name in KEY_FIELDS
    }


def _spans(meta: RankMeta, records: np.ndarray, kinds: np.ndarray) -> pa.Table:
    size = len(records)
    describe = _Lookup(records[:, 0] & 0xFFFFFFFF, max(meta.descriptors, default=0))

    def described(name: str, kind: pa.DataType = _STR) -> pa.Array:
        return describe.column(lambda key: meta.descriptors.get(key, {}).get(name), kind)

    # `extra` names attributes only where it is not the time a communication was issued.
    attrs = _Lookup(
        np.where(np.isin(kinds, _COMMUNICATION), 0, records[:, 11]), max(meta.attrs, default=0)
    )
    has_cpu = records[:, 6] >= 0
    start = pa.array(records[:, 4])
    return pa.table(
        {
            "rank": pa.array(np.full(size, meta.rank, dtype=np.int32)),
            **_keys(meta, records[:, 3]),
            "span_id": pa.array(records[:, 1]),
            "parent_id": _nullable(records[:, 2], records[:, 2] > 0),
            "source": _constant(SOURCE, size),
            "timeline": described("timeline"),
            "stream": pa.array((records[:, 0] >> 32) & 0xFF),
            "name": described("name"),
            "category": described("category"),
            "layer": described("layer", pa.int32()),
            "start_ns": start,
            "end_ns": pa.array(records[:, 5]),
            "raw_start_ns": start,
            "cpu_start_ns": _nullable(records[:, 6], has_cpu),
            "cpu_ns": _nullable(records[:, 7] - records[:, 6], has_cpu),
            "bytes": _nullable(records[:, 8], records[:, 8] >= 0),
            "complete": pa.array(np.ones(size, dtype=bool)),
            "attrs": attrs.column(lambda key: _attrs_text(meta, key), pa.string()),
        }
    )


def _attrs_text(meta: RankMeta, key: int) -> str | None:
    found = meta.attrs.get(key)
    return json.dumps(found.get("attrs", {}), sort_keys=True) if found else None


def _collectives(meta: RankMeta, records: np.ndarray) -> pa.Table:
    size = len(records)
    describe = _Lookup(records[:, 0] & 0xFFFFFFFF, max(meta.descriptors, default=0))
    groups = _Lookup(records[:, 9] >> 32, max(meta.groups, default=0))
    op = describe.column(lambda key: meta.descriptors.get(key, {}).get("op"), pa.string())
    peer = (records[:, 9] & 0xFFFFFFFF) - 1

    def is_op(*names: str) -> np.ndarray:
        member = [
            meta.descriptors.get(k, {}).get("op") in names for k in range(describe.largest + 1)
        ]
        return np.array(member)[describe.ids]

    mine = np.full(size, meta.rank, dtype=np.int64)
    # A rooted operation keeps its root where a point-to-point call keeps its peer.
    source_rank = np.where(is_op("send"), mine, peer)
    target_rank = np.where(is_op("recv"), mine, peer)
    has_source = is_op("send", "recv", "broadcast", "scatter") & (peer >= 0)
    has_target = is_op("send", "recv", "reduce", "gather") & (peer >= 0)
    enqueue = np.where(records[:, 11] > 0, records[:, 11], records[:, 4])
    start = pa.array(records[:, 4])
    return pa.table(
        {
            "rank": pa.array(mine.astype(np.int32)),
            **_keys(meta, records[:, 3]),
            "span_id": pa.array(records[:, 1]),
            "source": _constant(SOURCE, size),
            "timeline": describe.column(
                lambda key: meta.descriptors.get(key, {}).get("timeline"), pa.string()
            ),
            "comm_group": groups.column(meta.group_name, pa.string()),
            "seq": _nullable(records[:, 10], records[:, 10] >= 0),
            "op": op,
            "src_rank": _nullable(source_rank.astype(np.int32), has_source),
            "dst_rank": _nullable(target_rank.astype(np.int32), has_target),
            "bytes": _nullable(records[:, 8], records[:, 8] >= 0),
            "dtype": describe.column(
                lambda key: meta.descriptors.get(key, {}).get("dtype"), pa.string()
            ),
            "group_size": groups.column(lambda key: len(meta.group_ranks(key)) or None, pa.int32()),
            "enqueue_ns": pa.array(enqueue),
            "start_ns": start,
            "end_ns": pa.array(records[:, 5]),
            "duration_ns": pa.array(records[:, 5] - records[:, 4]),
        }
    )


def _table(rows: list[dict[str, Any]], schema: list[tuple[str, pa.DataType]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=pa.schema(schema))


_KEY_SCHEMA = [
    ("batch", _I32),
    ("microbatch", _I32),
    ("repeat", _I32),
    ("phase", _STR),
    ("step", _I32),
    ("warmup", _BOOL),
    ("perturbed_by", _STR),
]


def clock_batches(meta: RankMeta) -> Iterator[Batch]:
    """What a rank's meta file says about its clock and its neighbours'."""
    yield Batch("clock_anchors", _anchors(meta))
    clocks = meta.rows.get("clock", [])
    if clocks:
        yield Batch("clock_pingpongs", _pingpongs(meta, clocks))


def meta_batches(meta: RankMeta) -> Iterator[Batch]:
    """Steps, tokens, requests and samples of a rank's meta file."""
    if meta.rows.get("step"):
        yield Batch("steps", _steps(meta))
    if meta.rows.get("tokens"):
        yield Batch("step_tokens", _step_tokens(meta))
    if meta.rows.get("request"):
        yield Batch("requests", _requests(meta))
    if meta.rows.get("sample"):
        yield Batch("samples", _samples(meta))


def _anchors(meta: RankMeta) -> pa.Table:
    rows = [
        {
            "source": SOURCE,
            "rank": meta.rank,
            "host": meta.host,
            "clock_domain": meta.start.get("boot_id"),
            "raw_ns": row.get("mono_ns"),
            "wall_ns": row.get("wall_ns"),
            "width_ns": row.get("width_ns"),
        }
        for row in meta.rows.get("anchor", [])
    ]
    names = [("source", _STR), ("rank", _I32), ("host", _STR), ("clock_domain", _STR)]
    return _table(rows, [*names, ("raw_ns", _I64), ("wall_ns", _I64), ("width_ns", _I64)])


def _pingpongs(meta: RankMeta, clocks: list[dict[str, Any]]) -> pa.Table:
    rows = [
        {"rank": meta.rank, "peer": row["peer"], **{f"t{k}_ns": row[f"t{k}"] for k in range(4)}}
        for row in clocks
    ]
    return _table(rows, [("rank", _I32), ("peer", _I32), *((f"t{k}_ns", _I64) for k in range(4))])


def _key_of(meta: RankMeta, unit: Any) -> dict[str, Any]:
    known = meta.units.get(unit, {})
    return {name: known.get(name) for name in KEY_FIELDS}


def _steps(meta: RankMeta) -> pa.Table:
    names = ("batch_size", "padded_batch", "prefill_tokens", "decode_tokens", "kv_tokens")
    rows = [
        {"rank": meta.rank, **_key_of(meta, row.get("unit")), **{n: row.get(n) for n in names}}
        for row in meta.rows["step"]
    ]
    kinds = [(name, _I32 if "batch" in name else _I64) for name in names]
    return _table(rows, [("rank", _I32), *_KEY_SCHEMA, *kinds])


def _step_tokens(meta: RankMeta) -> pa.Table:
    requests = {
        (row.get("batch"), row.get("repeat")): row.get("requests", [])
        for row in meta.rows.get("batch", [])
    }
    rows = []
    for row in meta.rows["tokens"]:
        key = _key_of(meta, row.get("unit"))
        names = requests.get((key["batch"], key["repeat"]), [])
        first = int(row.get("first_row") or 0)
        for index, count in enumerate(row.get("n", []), start=first):
            name = names[index] if index < len(names) else str(index)
            times = {"device_ns": row.get("device_ns"), "host_ns": row.get("host_ns")}
            rows.append({"rank": meta.rank, **key, "request_id": name, "n_tokens": count, **times})
    return _table(
        rows,
        [
            ("rank", _I32),
            *_KEY_SCHEMA,
            ("request_id", _STR),
            ("n_tokens", _I32),
            ("device_ns", _I64),
            ("host_ns", _I64),
        ],
    )


def _requests(meta: RankMeta) -> pa.Table:
    rows = []
    for row in meta.rows["request"]:
        start, first, end = row.get("start_ns"), row.get("first_token_ns"), row.get("end_ns")
        ttft = first - start if first is not None and start is not None else None
        e2e = end - start if end is not None and start is not None else None
        count = row.get("output_tokens")
        tpot = None
        if ttft is not None and e2e is not None and count is not None and count > 1:
            tpot = (e2e - ttft) // (count - 1)
        rows.append(
            {
                "request_id": row.get("id"),
                "rank": meta.rank,
                **{n: row.get(n) for n in ("batch", "repeat", "warmup", "perturbed_by")},
                "prompt_tokens": row.get("prompt_tokens"),
                "output_tokens": count,
                "arrival_ns": row.get("arrival_ns"),
                "start_ns": start,
                "ttft_ns": ttft,
                "tpot_ns": tpot,
                "e2e_ns": e2e,
            }
        )
    head = [
        ("request_id", _STR),
        ("rank", _I32),
        ("batch", _I32),
        ("repeat", _I32),
        ("warmup", _BOOL),
    ]
    counts = [("perturbed_by", _STR), ("prompt_tokens", _I32), ("output_tokens", _I32)]
    times = [(f"{n}_ns", _I64) for n in ("arrival", "start", "ttft", "tpot", "e2e")]
    return _table(rows, [*head, *counts, *times])


def _samples(meta: RankMeta) -> pa.Table:
    rows = [
        {
            "host": meta.host,
            "rank": meta.rank,
            "device": row.get("device"),
            "metric": row.get("metric"),
            "unit": row.get("unit"),
            "ts_ns": row.get("mono_ns"),
            "value": row.get("value"),
            "source": SOURCE,
        }
        for row in meta.rows["sample"]
    ]
    names = [("host", _STR), ("rank", _I32), ("device", _I32), ("metric", _STR), ("unit", _STR)]
    return _table(rows, [*names, ("ts_ns", _I64), ("value", _F64), ("source", _STR)])


def closing_batches(
    meta: RankMeta, spans: SpoolFile, counts: Counts, path: Path
) -> Iterator[Batch]:
    """The rank, what was still open when it ended, and how complete its evidence is."""
    last = max(
        [counts.last_end_ns]
        + [
            row.get("mono_ns") or 0
            for kind in ("anchor", "error")
            for row in meta.rows.get(kind, [])
        ]
    )
    open_units = sorted(set(meta.units) - counts.closed_units)
    if open_units and meta.end is None:
        yield Batch("spans", _open_units(meta, open_units[-1:], last))
    pending = read_live(path.with_name(path.name.replace(".meta.jsonl", ".live")))
    if pending is not None and pending.descriptor in meta.descriptors:
        yield Batch("collectives", _pending(meta, pending))
    yield Batch("ranks", _rank_row(meta, last))
    yield Batch("collection", _collection(meta, spans, counts, path))


@dataclass(frozen=True)
class Pending:
    """What the live page says the rank was inside of."""

    descriptor: int
    unit: int
    group: int
    peer: int
    ordinal: int
    start_ns: int
    num_bytes: int


_LIVE = struct.Struct("<8s10q")


def read_live(path: Path) -> Pending | None:
    """The pending communication of a live page; None: nothing pending, or no such page."""
    try:
        with path.open("rb") as stream:
            data = stream.read(_LIVE.size)
        magic, _, _, unit, descriptor, group_peer, ordinal, start, size, *_ = _LIVE.unpack(data)
    except (OSError, struct.error):
        return None
    if magic != spool.LIVE_MAGIC or descriptor <= 0:
        return None
    peer = (group_peer & 0xFFFFFFFF) - 1
    return Pending(descriptor, unit, group_peer >> 32, peer, ordinal, start, size)


def _open_units(meta: RankMeta, units: list[int], last_ns: int) -> pa.Table:
    rows = []
    for unit in units:
        start = meta.units[unit].get("start_ns")
        rows.append(
            {
                "rank": meta.rank,
                **_key_of(meta, unit),
                "span_id": -unit,
                "source": SOURCE,
                "timeline": "host",
                "stream": 0,
                "name": meta.units[unit].get("phase"),
                "category": "unit",
                "start_ns": start,
                "end_ns": max(last_ns, start) if start is not None else None,
                "raw_start_ns": start,
                "complete": False,
            }
        )
    names = [("span_id", _I64), ("source", _STR), ("timeline", _STR), ("stream", _I64)]
    times = [("start_ns", _I64), ("end_ns", _I64), ("raw_start_ns", _I64), ("complete", _BOOL)]
    return _table(
        rows,
        [("rank", _I32), *_KEY_SCHEMA, *names, ("name", _STR), ("category", _STR), *times],
    )


def _pending(meta: RankMeta, pending: Pending) -> pa.Table:
    described = meta.descriptors[pending.descriptor]
    op = str(described.get("op"))
    row = {
        "rank": meta.rank,
        **_key_of(meta, pending.unit),
        "source": SOURCE,
        "timeline": described.get("timeline"),
        "comm_group": meta.group_name(pending.group),
        "seq": pending.ordinal,
        "op": op,
        "src_rank": {"send": meta.rank, "recv": pending.peer}.get(op),
        "dst_rank": {"send": pending.peer, "recv": meta.rank}.get(op),
        "bytes": pending.num_bytes if pending.num_bytes >= 0 else None,
        "dtype": described.get("dtype"),
        "group_size": len(meta.group_ranks(pending.group)) or None,
        "start_ns": pending.start_ns,
        "unsplit_reason": "never ended",
    }
    texts = ("source", "timeline", "comm_group", "op", "dtype", "unsplit_reason")
    numbers = ("seq", "bytes", "start_ns")
    small = ("src_rank", "dst_rank", "group_size")
    schema = [("rank", _I32), *_KEY_SCHEMA]
    schema += [(n, _STR) for n in texts] + [(n, _I64) for n in numbers] + [(n, _I32) for n in small]
    return _table([row], schema)


def _rank_row(meta: RankMeta, last_ns: int) -> pa.Table:
    facts = meta.facts
    small = ("tp_rank", "stage", "first_layer", "last_layer", "numa")
    texts = ("device", "gpu_uuid", "pci", "cpus")
    row = {
        "rank": meta.rank,
        "local_rank": meta.start.get("local_rank"),
        "host": meta.host,
        "pid": meta.start.get("pid"),
        "clock_domain": meta.start.get("boot_id"),
        **{name: facts.get(name) for name in small},
        **{name: None if facts.get(name) is None else str(facts[name]) for name in texts},
        "weights_bytes": facts.get("weights_bytes"),
        "complete": meta.end is not None,
        "last_record_ns": last_ns or None,
    }
    schema = [("rank", _I32), ("local_rank", _I32), ("host", _STR), ("pid", _I32)]
    schema += [("clock_domain", _STR), *((n, _I32) for n in small), *((n, _STR) for n in texts)]
    schema += [("weights_bytes", _I64), ("complete", _BOOL), ("last_record_ns", _I64)]
    return _table([row], schema)


def _collection(meta: RankMeta, spans: SpoolFile, counts: Counts, path: Path) -> pa.Table:
    end = meta.end or {}
    problems = []
    if not spans.readable:
        problems.append(f"{spans.path.name} is missing or not a spool")
    if meta.end is None:
        problems.append("the rank ended without closing its spool; at most its last second is lost")
    if spans.torn_bytes:
        problems.append(f"{spans.torn_bytes} bytes after the last whole record were dropped")
    dropped = (end.get("dropped") or 0) + (end.get("dropped_meta") or 0)
    if dropped:
        problems.append(f"{dropped} records could not be written")
    unreadable = meta.unreadable + max(0, spans.records - counts.records)
    if unreadable:
        problems.append(f"{unreadable} records or lines could not be read")
    rows: list[dict[str, Any]] = [
        {
            "collector": SOURCE,
            "host": meta.host,
            "rank": meta.rank,
            "state": "degraded" if problems else "ok",
            "reason": "; ".join(problems) or None,
            "bytes": path.stat().st_size + spans.records * spool.RECORD_BYTES,
            "records": counts.records,
            "dropped": dropped if meta.end else None,
            "unreadable": unreadable,
        }
    ]
    rows += [
        {
            "collector": row.get("collector"),
            "host": meta.host,
            "rank": meta.rank,
            "state": row.get("state"),
            "reason": row.get("reason") or None,
        }
        for row in meta.rows.get("collection", [])
    ]
    schema = [
        ("collector", _STR),
        ("host", _STR),
        ("rank", _I32),
        ("state", _STR),
        ("reason", _STR),
    ]
    schema += [(n, _I64) for n in ("bytes", "records", "dropped", "unreadable")]
    return _table(rows, schema)
