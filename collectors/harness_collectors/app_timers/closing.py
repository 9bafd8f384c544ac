"""What a rank leaves behind: itself, what was still open, and how complete its evidence is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from harness_collectors.app_timers.meta_rows import (
    BOOL,
    F64,
    I32,
    I64,
    KEY_SCHEMA,
    STR,
    key_of,
    table_of,
)
from harness_collectors.app_timers.record_rows import Counts
from harness_collectors.app_timers.spool import SOURCE, RankMeta
from harness_collectors.app_timers.streams import SpoolFile
from harness_collectors.reading.gunzip import ENDS_EARLY
from harness_schemas import spool
from harness_schemas.live import LivePage, PendingCall, read_page
from harness_schemas.spi import Batch


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
    page = read_page(spool.beside(path, spool.LIVE))
    if page and page.now:  # its line was to be written with the next records
        meta.units.setdefault(page.unit, asdict(page.now))
    open_units = sorted(set(meta.units) - counts.closed_units)
    if open_units and meta.end is None:
        yield Batch("spans", _open_units(meta, open_units[-1:], last))
    if page and page.pending and page.pending.descriptor in meta.descriptors:
        yield Batch("collectives", _pending(meta, page, page.pending))
    yield Batch("ranks", _rank_row(meta, last))
    yield Batch("collection", _collection(meta, spans, counts, path))


def _open_units(meta: RankMeta, units: list[int], last_ns: int) -> pa.Table:
    rows = []
    for unit in units:
        start = meta.units[unit].get("start_ns")
        rows.append(
            {
                "rank": meta.rank,
                **key_of(meta, unit),
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
    names = [("span_id", I64), ("source", STR), ("timeline", STR), ("stream", I64)]
    times = [("start_ns", I64), ("end_ns", I64), ("raw_start_ns", I64), ("complete", BOOL)]
    return table_of(
        rows,
        [("rank", I32), *KEY_SCHEMA, *names, ("name", STR), ("category", STR), *times],
    )


def _pending(meta: RankMeta, page: LivePage, pending: PendingCall) -> pa.Table:
    described = meta.descriptors[pending.descriptor]
    op = str(described.get("op"))
    row = {
        "rank": meta.rank,
        **key_of(meta, page.unit),
        "source": SOURCE,
        "timeline": "host",  # where it was entered, also of a call on a device
        "comm_group": meta.group_name(pending.group),
        "seq": pending.ordinal,
        "op": op,
        "src_rank": {"send": meta.rank, "recv": pending.peer}.get(op),
        "dst_rank": {"send": pending.peer, "recv": meta.rank}.get(op),
        "bytes": pending.num_bytes,
        "dtype": described.get("dtype"),
        "group_size": len(meta.group_ranks(pending.group)) or None,
        "start_ns": pending.start_ns,
        "unsplit_reason": "never ended",
    }
    texts = ("source", "timeline", "comm_group", "op", "dtype", "unsplit_reason")
    numbers = ("seq", "bytes", "start_ns")
    small = ("src_rank", "dst_rank", "group_size")
    schema = [("rank", I32), *KEY_SCHEMA]
    schema += [(n, STR) for n in texts] + [(n, I64) for n in numbers] + [(n, I32) for n in small]
    return table_of([row], schema)


SIZES = (
    "weights_bytes",
    "step_weight_bytes",
    "kv_bytes_per_token",
    "flops_per_token",
    "attention_flops_per_kv_token",
    "peak_memory_bytes",
)
RATES = ("peak_bytes_per_s", "peak_flops_per_s")
"""Facts that the runner states of a rank (table `ranks`)."""


def _rank_row(meta: RankMeta, last_ns: int) -> pa.Table:
    facts = meta.facts
    small = ("tp_rank", "stage", "first_layer", "last_layer", "numa")
    texts = ("device", "gpu_uuid", "gpu_name", "pci", "cpus", "peak_source", "memory_plan")
    row = {
        "rank": meta.rank,
        "local_rank": meta.start.get("local_rank"),
        "host": meta.host,
        "pid": meta.start.get("pid"),
        "clock_domain": meta.start.get("boot_id"),
        **{name: facts.get(name) for name in small},
        **{name: None if facts.get(name) is None else str(facts[name]) for name in texts},
        **{name: facts.get(name) for name in (*SIZES, *RATES)},
        "complete": meta.end is not None,
        "last_record_ns": last_ns or None,
    }
    schema = [("rank", I32), ("local_rank", I32), ("host", STR), ("pid", I32)]
    schema += [("clock_domain", STR), *((n, I32) for n in small), *((n, STR) for n in texts)]
    schema += [*((n, I64) for n in SIZES), *((n, F64) for n in RATES)]
    schema += [("complete", BOOL), ("last_record_ns", I64)]
    return table_of([row], schema)


def _collection(meta: RankMeta, spans: SpoolFile, counts: Counts, path: Path) -> pa.Table:
    end = meta.end or {}
    problems = []
    if not spans.readable:
        problems.append(f"{spans.path.name} is missing or not a spool")
    if meta.end is None:
        problems.append("the rank ended without closing its spool; at most its last second is lost")
    usual = ("", ENDS_EARLY) if meta.end is None else ("",)
    cut = {spans.path.name: spans.cut, spool.beside(path, spool.UNITS).name: meta.cut}
    problems += [f"{name}: {why}" for name, why in cut.items() if why not in usual]
    if spans.torn_bytes:
        problems.append(f"{spans.torn_bytes} bytes after the last whole record were dropped")
    lost = sum(row.get("lost") or 0 for row in meta.rows.get("device_end", []))
    if meta.rows.get("device") and not meta.rows.get("device_end"):
        problems.append("device times that were still pending are lost")
    dropped = (end.get("dropped") or 0) + (end.get("dropped_meta") or 0) + lost
    if dropped:
        problems.append(f"{dropped} records could not be written")
    found = max(spans.records, end.get("records") or 0)
    unreadable = meta.unreadable + max(0, found - counts.records)
    if unreadable:
        problems.append(f"{unreadable} records or lines could not be read")
    rows: list[dict[str, Any]] = [
        {
            "collector": SOURCE,
            "host": meta.host,
            "rank": meta.rank,
            "state": "degraded" if problems else "ok",
            "reason": "; ".join(problems) or None,
            "bytes": _bytes_on_disk(path, spans.path, spool.beside(path, spool.UNITS)),
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
        ("collector", STR),
        ("host", STR),
        ("rank", I32),
        ("state", STR),
        ("reason", STR),
    ]
    schema += [(n, I64) for n in ("bytes", "records", "dropped", "unreadable")]
    return table_of(rows, schema)


def _bytes_on_disk(*paths: Path) -> int:
    total = 0
    for path in paths:
        with contextlib.suppress(OSError):
            total += path.stat().st_size
    return total
