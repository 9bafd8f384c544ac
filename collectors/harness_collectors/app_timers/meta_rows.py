"""Rows made from the lines of a rank's meta file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from harness_collectors.app_timers.spool import GRAPH_SOURCE, SOURCE, RankMeta
from harness_schemas.spi import Batch

KEY_FIELDS = ("batch", "microbatch", "repeat", "phase", "step", "warmup", "perturbed_by")
I64, I32, STR, BOOL, F64 = pa.int64(), pa.int32(), pa.string(), pa.bool_(), pa.float64()


def table_of(rows: list[dict[str, Any]], schema: list[tuple[str, pa.DataType]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=pa.schema(schema))


KEY_SCHEMA = [
    ("batch", I32),
    ("microbatch", I32),
    ("repeat", I32),
    ("phase", STR),
    ("step", I32),
    ("warmup", BOOL),
    ("perturbed_by", STR),
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


def device_domain(meta: RankMeta) -> str | None:
    """Name of the clock of the rank's GPU; None where no GPU was recorded."""
    devices = meta.rows.get("device")
    return f"{meta.start.get('boot_id')}:{devices[0].get('uuid')}" if devices else None


def _anchors(meta: RankMeta) -> pa.Table:
    device = device_domain(meta)
    sources = (SOURCE, GRAPH_SOURCE) if device else (SOURCE,)
    rows: list[dict[str, Any]] = []
    for source in sources:
        whose = {"source": source, "rank": meta.rank, "host": meta.host}
        rows += [
            {
                **whose,
                "timeline": "host",
                "clock_domain": meta.start.get("boot_id"),
                "raw_ns": row.get("mono_ns"),
                "wall_ns": row.get("wall_ns"),
                "width_ns": row.get("width_ns"),
            }
            for row in meta.rows.get("anchor", [])
        ]
        if device:
            # No wall time: the device is reached through its host (clock_pingpongs).
            rows.append({**whose, "timeline": "device", "clock_domain": device})
    names = [("source", STR), ("timeline", STR), ("rank", I32), ("host", STR)]
    times = [("raw_ns", I64), ("wall_ns", I64), ("width_ns", I64)]
    return table_of(rows, [*names, ("clock_domain", STR), *times])


def _pingpongs(meta: RankMeta, clocks: list[dict[str, Any]]) -> pa.Table:
    device = device_domain(meta)
    rows = []
    for row in clocks:
        to_device = row.get("to") == "device"
        rows.append(
            {
                "rank": meta.rank,
                "peer": row["peer"],
                "clock_domain": meta.start.get("boot_id") if to_device else None,
                "peer_domain": device if to_device else None,
                **{f"t{k}_ns": row[f"t{k}"] for k in range(4)},
            }
        )
    names = [("rank", I32), ("peer", I32), ("clock_domain", STR), ("peer_domain", STR)]
    return table_of(rows, [*names, *((f"t{k}_ns", I64) for k in range(4))])


def key_of(meta: RankMeta, unit: Any) -> dict[str, Any]:
    known = meta.units.get(unit, {})
    return {name: known.get(name) for name in KEY_FIELDS}


def _steps(meta: RankMeta) -> pa.Table:
    names = ("batch_size", "padded_batch", "prefill_tokens", "decode_tokens", "kv_tokens")
    rows = [
        {"rank": meta.rank, **key_of(meta, row.get("unit")), **{n: row.get(n) for n in names}}
        for row in meta.rows["step"]
    ]
    kinds = [(name, I32 if "batch" in name else I64) for name in names]
    return table_of(rows, [("rank", I32), *KEY_SCHEMA, *kinds])


def _step_tokens(meta: RankMeta) -> pa.Table:
    requests = {
        (row.get("batch"), row.get("repeat")): row.get("requests") or []
        for row in meta.rows.get("batch", [])
    }
    rows = []
    for row in meta.rows["tokens"]:
        key = key_of(meta, row.get("unit"))
        names = requests.get((key["batch"], key["repeat"]), [])
        first = int(row.get("first_row") or 0)
        for index, count in enumerate(row.get("n") or [], start=first):
            name = names[index] if index < len(names) else str(index)
            times = {"device_ns": row.get("device_ns"), "host_ns": row.get("host_ns")}
            rows.append({"rank": meta.rank, **key, "request_id": name, "n_tokens": count, **times})
    return table_of(
        rows,
        [
            ("rank", I32),
            *KEY_SCHEMA,
            ("request_id", STR),
            ("n_tokens", I32),
            ("device_ns", I64),
            ("host_ns", I64),
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
        ("request_id", STR),
        ("rank", I32),
        ("batch", I32),
        ("repeat", I32),
        ("warmup", BOOL),
    ]
    counts = [("perturbed_by", STR), ("prompt_tokens", I32), ("output_tokens", I32)]
    times = [(f"{n}_ns", I64) for n in ("arrival", "start", "ttft", "tpot", "e2e")]
    return table_of(rows, [*head, *counts, *times])


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
    names = [("host", STR), ("rank", I32), ("device", I32), ("metric", STR), ("unit", STR)]
    return table_of(rows, [*names, ("ts_ns", I64), ("value", F64), ("source", STR)])
