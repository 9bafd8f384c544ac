"""Traces of our own making, in every form that Kineto has written, and their rows."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from harness_collectors.kineto import COLLECTOR
from harness_schemas.spi import IngestContext

BASE = 1790857026000000000
OLD_CATS = {
    "kernel": "Kernel",
    "gpu_memcpy": "Memcpy",
    "gpu_memset": "Memset",
    "cuda_runtime": "Runtime",
    "cpu_op": "Operator",
}
ALLREDUCE = "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)"
SENDRECV = "ncclDevKernel_SendRecv(ncclDevKernelArgsStorage<4096ul>)"
GEMM = "nvjet_sm90_tst_64x8_64x16_4x1_v_bz_TNT"


def span(cat, name, ts, dur, pid=7, tid=7, **args):
    return {
        "ph": "X", "cat": cat, "name": name, "pid": pid, "tid": tid,
        "ts": ts, "dur": dur, "args": args,
    }  # fmt: skip


def mark(name, ts, dur, tid=7):
    return span("user_annotation", name, ts, dur, tid=tid)


def launched(
    correlation, at, start, dur, name=GEMM, cat="kernel", tid=7, call="cudaLaunchKernel", **args
):
    """A runtime call, its flow and what it launched."""
    args = {"device": 0, "stream": 7, "correlation": correlation, **args}
    args = {key: value for key, value in args.items() if value is not None}
    return [
        span("cuda_runtime", call, at, 4.0, tid=tid, cbid=211, correlation=correlation),
        {"ph": "s", "id": correlation, "pid": 7, "tid": 7, "ts": at, "cat": "ac2g", "name": "ac2g"},
        span(cat, name, start, dur, pid=0, tid=7, **args),
        {"ph": "f", "id": correlation, "pid": 0, "tid": 7, "ts": start, "cat": "ac2g",
         "name": "ac2g", "bp": "e"},
    ]  # fmt: skip


def collective(op="allreduce", elements=2048, group="0", ranks="[0, 1]", **more):
    """What record_param_comms leaves on a kernel."""
    return {
        "Collective name": op,
        "In msg nelems": elements,
        "Out msg nelems": elements,
        "Group size": 2,
        "dtype": "BFloat16",
        "In split size": "[]",
        "Out split size": "[]",
        "Process Group Name": group,
        "Process Group Ranks": ranks,
        **more,
    }


def groups(*sets, rank=0, world_size=2):
    """distributedInfo with these process groups."""
    config = [
        {"pg_name": str(n), "pg_desc": "undefined", "pg_size": len(ranks), "ranks": list(ranks)}
        for n, ranks in enumerate(sets)
    ]
    return {
        "backend": "nccl", "rank": rank, "world_size": world_size,
        "pg_count": len(config), "pg_config": config,
    }  # fmt: skip


def decode_events():
    """Two decode steps: compute and an all-reduce in each, a copy launched between them."""
    return [
        mark("decode_step_1", 100.0, 50.0),
        *launched(11, 110.0, 130.125, 20.5),
        *launched(12, 120.0, 155.001, 30.25, ALLREDUCE, stream=13, **collective()),
        *launched(13, 155.0, 190.0, 3.5, "Memcpy DtoH (Device -> Pinned)", "gpu_memcpy", bytes=64),
        mark("decode_step_2", 160.0, 50.0),
        *launched(14, 170.0, 200.0, 20.5),
        *launched(15, 180.0, 225.0, 30.25, ALLREDUCE, stream=13, **collective()),
    ]


def text(events, info=None, base=BASE, at_end=(), style="pretty", **header):
    """The file's text. `at_end`: header keys that are written after the events."""
    fields = {"schemaVersion": 1, "deviceProperties": [], **header}
    if info is not None:
        fields["distributedInfo"] = info
    if base is not None:
        fields["baseTimeNanoseconds"] = base
    late = {key: fields.pop(key) for key in at_end if key in fields}
    document = {**fields, "traceEvents": events, **late, "traceName": "trace.json"}
    if style == "list":
        return json.dumps(events)
    if style == "compact":
        return json.dumps(document, separators=(",", ":"))
    if style == "line":
        return json.dumps(document)
    return json.dumps(document, indent=2)


def rows(tmp_path: Path, content, name="rank0.json"):
    """Tables of one file, as lists of dictionaries."""
    path = tmp_path / name
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return tables([path], tmp_path)


def tables(paths, root):
    found = {}
    for batch in COLLECTOR.ingest(list(paths), IngestContext(root)):
        found.setdefault(batch.table, []).extend(batch.data.to_pylist())
    return found


def device_spans(found):
    return [row for row in found.get("spans", []) if row["timeline"] == "device"]


def units(found):
    return [row for row in found.get("spans", []) if row["category"] == "unit"]
