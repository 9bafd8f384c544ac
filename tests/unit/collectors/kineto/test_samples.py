"""Strangers' traces against numbers that were counted by other means (NOTES.md, plain json)."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from functools import cache
from itertools import pairwise

import pytest
from support import SAMPLES, needs_samples
from unit.collectors.kineto.traces import device_spans, tables, units

from harness_collectors.kineto import COLLECTOR
from harness_schemas.spi import IngestContext

pytestmark = needs_samples
DLRM_WINDOWS_US = (13009, 18749, 11350, 18853, 16589, 16392, 11410, 10967)
DLRM_COMM_US = (5798, 11336, 3492, 9774, 6587, 6251, 3558, 1746)
DLRM_OPS = ["all_to_all"] * 4 + ["all_reduce", "all_to_all", "all_reduce", "all_reduce"]


@cache
def sample(relative):
    return tables([SAMPLES / relative], SAMPLES)


@cache
def plain(relative):
    """The same file through json, the slow and simple way."""
    with gzip.open(SAMPLES / relative) as stream:
        return json.load(stream)


def dlrm(rank):
    found = sorted((SAMPLES / "kineto/dlrm_8ranks").glob(f"worker{rank}_*.json.gz"))
    return sample(str(found[0].relative_to(SAMPLES)))


def comm(rows):
    return [row for row in device_spans(rows) if row["category"] == "comm"]


FILES = [
    # file, rank, events, device rows, of them in units, units, collectives
    ("kineto/misc/hta_cpu_only.json.gz", 34, 30, 0, 0, 1, 10),
    ("kineto/misc/hta_nccl_metadata.json.gz", 0, 40573, 3774, 3774, 3, 21),
    ("kineto/misc/hta_no_distributed_info.json.gz", 0, 2467, 0, 0, 1, 0),
    ("kineto/misc/hta_ns_resolution_rank0.json.gz", 0, 68692, 6095, 6095, 5, 0),
    ("kineto/misc/kineto_old_spelling_resnet50.json.gz", 0, 75718, 9096, 0, 0, 0),
    ("kineto/misc/tracelens_vllm_decode_graph_execution.json.gz", 0, 1993, 434, 434, 1, 0),
    ("h200/tp2_pp2/kineto_rank0.json.gz", 0, 93623, 9259, 9243, 13, 365),
    ("h200/tp2_pp2/kineto_rank1.json.gz", 1, 93465, 9259, 9243, 13, 365),
    ("h200/tp2_pp2/kineto_rank2.json.gz", 2, 88031, 9389, 9373, 13, 378),
    ("h200/tp2_pp2/kineto_rank3.json.gz", 3, 93486, 9389, 9373, 13, 378),
]


@pytest.mark.parametrize(("file", "rank", "events", "device", "in_units", "steps", "nccl"), FILES)
def test_counts(file, rank, events, device, in_units, steps, nccl):
    found = sample(file)
    state = found["collection"][0]
    detail = json.loads(state["detail"])
    assert (state["state"], state["rank"], state["unreadable"]) == ("ok", rank, 0)
    assert state["records"] == events
    assert len(device_spans(found)) == detail["device_rows"] == device
    assert detail["device_rows_launched"] == device
    assert detail["device_rows_in_units"] == in_units
    assert len(units(found)) == steps
    assert len(found.get("collectives", [])) == nccl


def test_counts_of_a_large_file():
    """264,791 complete events by another tool's count, one of them the profiler's own span."""
    path = SAMPLES / "h200/kineto_pp2_eager_decode_rank0.json.gz"
    batches = list(COLLECTOR.ingest([path], IngestContext(SAMPLES)))
    counted = Counter()
    for batch in batches:
        counted[batch.table] += batch.data.num_rows
        if batch.table == "spans":
            counted.update(batch.data["timeline"].to_pylist())
    detail = json.loads(batches[-1].data["detail"][0].as_py())
    assert detail["complete_events"] == 264792
    assert (counted["device"], counted["collectives"]) == (47221, 131)
    # 56,497 CUDA calls, 131 annotations, 10 of overhead, and the outermost operators.
    assert counted["host"] == 56497 + 131 + 10 + 47954


@pytest.mark.parametrize("file", [entry[0] for entry in FILES])
def test_device_work_is_what_plain_json_says(file):
    """Names, categories and times to the nanosecond, from a reader that shares no code."""
    document = plain(file)
    base = document.get("baseTimeNanoseconds", 0)
    kinds = {"kernel", "gpu_memcpy", "gpu_memset", "Kernel", "Memcpy", "Memset"}
    expected = [
        (
            event["name"],
            base + round(event["ts"] % 1 * 1000) + int(event["ts"]) * 1000,
            event["dur"],
        )
        for event in document["traceEvents"]
        if event.get("ph") == "X" and event.get("cat") in kinds
    ]
    rows = device_spans(sample(file))
    assert [row["name"] for row in rows] == [name for name, _, _ in expected]
    off = {abs(r["start_ns"] - e[1]) for r, e in zip(rows, expected, strict=True)}
    # Without a base, json's float of absolute microseconds is itself coarse: 0.25 us.
    assert max(off, default=0) <= (0 if base else 125)
    assert [row["end_ns"] - row["start_ns"] for row in rows] == [
        round(dur * 1000) for _, _, dur in expected
    ]


@pytest.mark.parametrize("rank", range(8))
def test_dlrm_windows_and_communication(rank):
    rows = device_spans(dlrm(rank))
    first = min(row["start_ns"] for row in rows)
    last = max(row["end_ns"] for row in rows)
    assert last - first == DLRM_WINDOWS_US[rank] * 1000
    spent = sum(row["end_ns"] - row["start_ns"] for row in comm(dlrm(rank)))
    assert spent == DLRM_COMM_US[rank] * 1000


@pytest.mark.parametrize("rank", range(8))
def test_dlrm_collectives_are_the_same_on_every_rank(rank):
    rows = sorted(dlrm(rank)["collectives"], key=lambda row: row["seq"])
    assert [row["seq"] for row in rows] == list(range(8))
    assert [row["op"] for row in rows] == DLRM_OPS
    assert {(row["comm_group"], row["group_size"]) for row in rows} == {("default", 8)}
    assert {row["bytes"] for row in rows} == {None}
    assert all(row["step"] == 10 for row in rows)


def test_dlrm_waits_and_last_arrivers():
    by_seq = [
        [
            (row["duration_ns"], rank)
            for rank in range(8)
            for row in dlrm(rank)["collectives"]
            if row["seq"] == k
        ]
        for k in range(8)
    ]
    assert [min(found)[0] // 1000 for found in by_seq] == [10, 8, 7, 7, 86, 10, 20, 69]
    assert [min(found)[1] for found in by_seq] == [7, 7, 7, 7, 7, 5, 5, 4]
    waits = sum(duration - min(found)[0] for found in by_seq for duration, _ in found)
    assert (waits // 1000, sum(d for found in by_seq for d, _ in found) // 1000) == (46806, 48542)


@pytest.mark.parametrize(("pair", "count", "minima_us"), [((0, 1), 338, 2979), ((2, 3), 351, 3107)])
def test_tensor_parallel_all_reduces_match_by_group_and_order(pair, count, minima_us):
    group = f"[{pair[0]},{pair[1]}]#0"
    found = [
        sorted(
            (
                r
                for r in sample(f"h200/tp2_pp2/kineto_rank{rank}.json.gz")["collectives"]
                if r["comm_group"] == group
            ),
            key=lambda row: row["seq"],
        )
        for rank in pair
    ]
    one, other = found
    assert [len(rows) for rows in found] == [count, count]
    keys = [
        [(r["seq"], r["op"], r["bytes"], r["phase"], r["step"]) for r in rows] for rows in found
    ]
    assert keys[0] == keys[1]
    shortest = [min(a["duration_ns"], b["duration_ns"]) for a, b in zip(one, other, strict=True)]
    assert round(sum(shortest) / 1000) == minima_us
    last = [a["duration_ns"] <= b["duration_ns"] for a, b in zip(one, other, strict=True)]
    assert sum(last) == {(0, 1): 306, (2, 3): 336}[pair]


def test_pipeline_sends_match_receives():
    sent = [
        r for r in sample("h200/tp2_pp2/kineto_rank0.json.gz")["collectives"] if r["op"] == "send"
    ]
    got = [
        r for r in sample("h200/tp2_pp2/kineto_rank2.json.gz")["collectives"] if r["op"] == "recv"
    ]
    key = ("src_rank", "dst_rank", "seq", "bytes", "dtype", "phase", "step")
    assert [[row[k] for k in key] for row in sent] == [[row[k] for k in key] for row in got]
    assert len(sent) == 13
    assert {(row["src_rank"], row["dst_rank"]) for row in sent} == {(0, 2)}
    assert [row["bytes"] for row in sent] == [3276800] + [6400] * 12


@pytest.mark.parametrize("rank", range(4))
def test_steps_of_the_decode_set(rank):
    found = sample(f"h200/tp2_pp2/kineto_rank{rank}.json.gz")
    steps = [(row["phase"], row["step"]) for row in units(found)]
    assert steps == [("prefill", 0), *(("decode", step) for step in range(12))]
    work = Counter((row["phase"], row["step"]) for row in device_spans(found))
    # Every decode step launches the same kernels; its annotation does not hold the broadcast.
    assert len({work["decode", step] for step in range(1, 12)}) == 1
    rows = units(found)
    assert all(a["end_ns"] <= b["start_ns"] for a, b in pairwise(rows))


def test_graph_replay_of_vllm_is_one_launch():
    found = device_spans(sample("kineto/misc/tracelens_vllm_decode_graph_execution.json.gz"))
    replayed = [row for row in found if row["attrs"]]
    assert len(replayed) == 421
    assert len({row["launch_ns"] for row in replayed}) == 1
    assert {(row["phase"], row["step"]) for row in replayed} == {("decode", 0)}


def test_every_trace_is_recognised_and_nothing_else():
    from harness.ingest import read_head

    for path in sorted(p for p in SAMPLES.rglob("*") if p.is_file()):
        is_trace = path.name.endswith(".json.gz") and (
            "kineto" in str(path.relative_to(SAMPLES)) and "timers" not in path.name
        )
        assert COLLECTOR.recognise(path, read_head(path)) == is_trace, path
