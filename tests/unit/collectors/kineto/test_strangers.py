"""Traces that torch.profiler did not write, or that somebody else has rewritten since."""

from __future__ import annotations

import gzip
import json

import duckdb
import pytest
from unit.collectors.kineto.traces import (
    BASE,
    GEMM,
    SENDRECV,
    collective,
    decode_events,
    device_spans,
    groups,
    launched,
    mark,
    rows,
    span,
    tables,
    text,
)

from harness.ingest import ingest_paths

TP2 = groups((0, 1))


def connect(path):
    return duckdb.connect(str(path), read_only=True)


def process_name(pid, name):
    return {"ph": "M", "name": "process_name", "pid": pid, "args": {"name": name}}


def plain(name, ts, dur, pid, tid=1):
    return {"ph": "X", "name": name, "ts": ts, "dur": dur, "pid": pid, "tid": tid}


OTHERS = {
    "JAX": {
        "displayTimeUnit": "ns",
        "metadata": {"highres-ticks": True},
        "traceEvents": [
            process_name(1, "/device:GPU:0"),
            plain("gemm_fusion_dot", 100.5, 20, 1),
            plain("ncclDevKernel_AllReduce_Sum_bf16_RING_LL", 130.5, 20, 1),
            {},
        ],
    },
    "Ascend": [
        process_name(3, "Ascend Hardware"),
        plain("aclnnMatmul_MatMulV2", "1720000000000010.123", 100, 3),
        plain("hcom_allReduce__123_0_1", "1720000000000200.000", 300, 4),
    ],
    "rocprof": {"traceEvents": [{}, plain("hipLaunchKernel", "1000", "5", 2)]},
    "VizTracer": {"traceEvents": [{**plain("main (a.py:1)", 1, 5, 9), "cat": "FEE"}]},
    "a browser": {"traceEvents": [{**plain("RunTask", 1, 5, 9), "cat": "toplevel"}]},
    "begin and end": {
        "traceEvents": [
            {"ph": "B", "cat": "kernel", "name": "k", "ts": 1, "pid": 0, "tid": 7},
            {"ph": "E", "cat": "kernel", "name": "k", "ts": 5, "pid": 0, "tid": 7},
        ]
    },
}


@pytest.mark.parametrize("tool", OTHERS)
def test_a_trace_of_another_tool_is_said_to_be_one(tmp_path, tool):
    found = rows(tmp_path, json.dumps(OTHERS[tool]), "trace.json")
    (state,) = found["collection"]
    assert (state["state"], state["rank"]) == ("failed", None)
    assert "is work that torch.profiler recorded" in state["reason"]
    assert set(found) == {"collection"}


def test_processes_of_unknown_rank_are_numbered_and_kept_apart(tmp_path):
    """Files as torch's trace handler names them, of a program without torch.distributed."""
    cuda = {2: 0, 10: 0}
    for pid in cuda:
        for cycle in (1, 2):
            events = [{**e, "pid": pid if e["pid"] == 7 else e["pid"]} for e in decode_events()]
            traced = text(events, base=BASE + cycle * 10**9)
            (tmp_path / f"host_{pid}.{cycle}.pt.trace.json").write_text(traced)
    server = [span("cpu_op", "aten::item", 1.0, 5.0, pid=99)]
    (tmp_path / "host_1.async_llm.pt.trace.json").write_text(text(server))
    found = tables(sorted(tmp_path.iterdir()), tmp_path)
    assert {(row["rank"], row["pid"]) for row in found["ranks"]} == {(0, 2), (1, 10), (None, 99)}
    assert [len([r for r in device_spans(found) if r["rank"] == n]) for n in (0, 1)] == [10, 10]
    told = [(row["rank"], row["reason"]) for row in found["collection"]]
    assert told[0] == (None, None)
    assert all("numbered in the order of the files" in reason for _, reason in told[1:])


def test_unknown_beside_known_ranks_stays_unknown(tmp_path):
    (tmp_path / "nobody.json").write_text(text(decode_events()))
    (tmp_path / "x.json").write_text(text(decode_events(), TP2))
    found = tables(sorted(tmp_path.iterdir()), tmp_path)
    assert [row["rank"] for row in found["collection"]] == [None, 0]


def test_several_devices_of_one_process_are_told_of(tmp_path):
    events = [*launched(1, 10.0, 20.0, 5.0), *launched(2, 11.0, 21.0, 5.0, GEMM, device=1)]
    (state,) = rows(tmp_path, text(events, TP2))["collection"]
    assert state["state"] == "ok"
    assert "one process drives 2 devices" in state["reason"]


def test_utf_16(tmp_path):
    """What PowerShell's `>` writes."""
    found = rows(tmp_path, text(decode_events(), TP2).encode("utf-16"))
    assert (len(device_spans(found)), found["collection"][0]["state"]) == (5, "ok")


def test_halves_of_characters_cost_no_event(tmp_path):
    events = [mark("half \ud800 \U0001f600", 900.0, 3.0), *decode_events()]
    found = rows(tmp_path, text(events, TP2))
    assert found["collection"][0]["unreadable"] == 0
    assert "half \ufffd \U0001f600" in {row["name"] for row in found["spans"]}


def test_correlation_ids_as_hexadecimal_texts(tmp_path):
    events = json.loads(json.dumps(decode_events()))
    for event in events:
        args = event.get("args", {})
        if "correlation" in args:
            args["correlation"] = hex(args["correlation"])
    assert [row["launch_ns"] for row in device_spans(rows(tmp_path, text(events, TP2)))] == [
        BASE + at for at in (110_000, 120_000, 155_000, 170_000, 180_000)
    ]


def test_a_recording_that_lies_there_twice_is_read_once(tmp_path):
    """Downloaded twice, or plain beside its gzip."""
    for name in ("rank0.json", "rank0 (1).json"):
        (tmp_path / name).write_text(text(decode_events(), TP2))
    found = tables(sorted(tmp_path.iterdir()), tmp_path)
    assert [row["state"] for row in found["collection"]] == ["ok", "failed"]
    assert "the same recording again" in found["collection"][1]["reason"]
    assert [row["seq"] for row in found["collectives"]] == [0, 1]


def test_between_two_recordings_of_a_rank_nothing_is_known(tmp_path):
    """Two cycles of a profiler's schedule: the last step of the first one ends with its work."""
    for cycle in (0, 1):
        traced = text(decode_events(), TP2, base=BASE + cycle * 10**9)
        (tmp_path / f"rank0.{cycle}.json").write_text(traced)
    with connect(ingest_paths([tmp_path], tmp_path / "d.duckdb")) as con:
        windows = con.sql(
            "SELECT window_ns, idle_ns FROM step_breakdown ORDER BY start_ns"
        ).fetchall()
        whole = con.sql("SELECT idle_ns, unresolved_ns FROM rank_breakdown WHERE phase = 'all'")
        idle, unresolved = whole.fetchall()[0]
    assert len(windows) == 4
    assert max(window for window, _ in windows) < 10**6
    assert 0 < idle < 10**6
    assert 10**9 - 10**6 < unresolved < 10**9


def test_a_replay_without_kernels_is_not_idle_time(tmp_path):
    replay = span("cuda_runtime", "cudaGraphLaunch", 30.0, 5.0, correlation=2)
    last = span("cuda_runtime", "cudaGraphLaunch", 190.0, 5.0, correlation=9)
    events = [*launched(1, 10.0, 20.0, 10.0), replay, *launched(3, 150.0, 180.0, 10.0), last]
    (tmp_path / "rank0.json").write_text(text(events, TP2))
    with connect(ingest_paths([tmp_path], tmp_path / "d.duckdb")) as con:
        (parts,) = con.sql(
            "SELECT window_ns, compute_ns, idle_ns, unresolved_ns FROM rank_breakdown"
        ).fetchall()
        ((reason,),) = con.sql(
            "SELECT reason FROM collection WHERE collector = 'kineto'"
        ).fetchall()
    assert parts == (170_000, 20_000, 0, 150_000)
    assert reason.startswith("1 launches of CUDA graphs show no device work")


@pytest.mark.parametrize("suffix", ["json", "json.gz"])
def test_a_rank_that_the_end_of_a_file_tells(tmp_path, suffix):
    """On-demand traces: span ids and calls of a rank stay apart from those of its other file."""
    late = text(decode_events(), TP2, base=BASE + 10**9, at_end=("distributedInfo",))
    data = late.encode()
    (tmp_path / f"a.{suffix}").write_bytes(gzip.compress(data) if suffix != "json" else data)
    (tmp_path / "b.json").write_text(text(decode_events(), TP2))
    found = tables(sorted(tmp_path.iterdir()), tmp_path)
    assert {row["rank"] for row in found["spans"]} == {0}
    ids = [row["span_id"] for row in found["spans"]]
    assert len(ids) == len(set(ids))


def test_processes_of_one_id_at_once_are_not_one_rank(tmp_path):
    """As in containers: both see themselves as process 7, and as rank 0."""
    for number, name in enumerate(("a.json", "b.json")):
        traced = text(decode_events(), TP2, base=BASE + number * 20_000)
        (tmp_path / name).write_text(traced)
    first, second = tables(sorted(tmp_path.iterdir()), tmp_path)["collection"]
    assert (first["state"], second["state"]) == ("ok", "failed")
    assert "a trace of another job or attempt" in second["reason"]


@pytest.mark.parametrize("base", [None, BASE])
def test_lost_times_make_no_window_of_decades(tmp_path, base):
    """CUPTI gives 0 where it lost a time: in absolute microseconds, or as minus the base."""
    begin = BASE // 1000 if base is None else 0
    gone = 0 if base is None else -BASE // 1000
    sound = [*launched(1, begin + 10, begin + 20, 10), *launched(2, begin + 30, begin + 40, 10)]
    lost = [span("kernel", GEMM, gone, 0, pid=0, device=0, stream=7, correlation=99)] * 3
    (tmp_path / "rank0.json").write_text(text([*lost, *sound], TP2, base=base))
    with connect(ingest_paths([tmp_path], tmp_path / "d.duckdb")) as con:
        assert con.sql("SELECT window_ns, idle_ns FROM rank_breakdown").fetchall() == [
            (30_000, 10_000)
        ]
        assert con.sql("SELECT unreadable FROM collection").fetchall() == [(3,)]


def test_a_process_that_launches_nothing_is_no_rank(tmp_path):
    """Counters that a tool writes among the events, under a process of its own."""
    counter = span("privateuse1_runtime", "mlx5_0:1", 5.0, 0.0, pid=2**31 - 2)
    found = rows(tmp_path, text([counter, *decode_events()], TP2))
    assert (found["ranks"][0]["pid"], found["collection"][0]["state"]) == (7, "ok")


def test_kernels_that_share_a_plain_launch_are_of_no_step(tmp_path):
    """ROCm hands one launch the kernels of two; a replayed graph has several of its own."""
    plain, graph = "hipLaunchKernel", "hipGraphLaunch"
    events = [mark("decode_step_1", 0.0, 50.0), *launched(1, 10.0, 20.0, 5.0, call=plain)]
    events += launched(1, 11.0, 120.0, 5.0, call=plain)[2:]
    events += launched(2, 30.0, 40.0, 5.0, call=graph) + launched(2, 30.0, 50.0, 5.0)[2:]
    found = device_spans(rows(tmp_path, text(events, TP2)))
    assert [row["step"] for row in sorted(found, key=lambda r: r["start_ns"])] == [1, 1, 1, None]


def test_an_exchange_of_unequal_parts_stays_unsplit(tmp_path):
    """How long each rank's part takes is not the shortest rank's time."""
    call = collective("all_to_allv", **{"In split size": "[3, 5]"})
    for rank in (0, 1):
        event = launched(1, 10.0, 20.0 + rank, 9.0 - rank, SENDRECV, **call)
        (tmp_path / f"rank{rank}.json").write_text(text(event, groups((0, 1), rank=rank)))
    with connect(ingest_paths([tmp_path], tmp_path / "d.duckdb")) as con:
        found = con.sql("SELECT DISTINCT op, wait_ns, unsplit_reason FROM collectives").fetchall()
        assert found == [("all_to_all", None, "unequal splits")]
        assert con.sql("SELECT transfer_ns FROM collective_waits").fetchall() == [(None,)]


def test_a_kernel_that_computes_as_well_is_booked_on_neither_side(tmp_path):
    """The shorter of two fused kernels is no transfer: it computes too."""
    name = "void flashinfer::trtllm_allreduce_fusion::allreduce_fusion_kernel_oneshot_lamport<8>"
    call = collective("allreduce")
    for rank in (0, 1):
        event = launched(1, 10.0, 20.0 + rank, 9.0 - rank, name, **call)
        (tmp_path / f"rank{rank}.json").write_text(text(event, groups((0, 1), rank=rank)))
    with connect(ingest_paths([tmp_path], tmp_path / "d.duckdb")) as con:
        found = con.sql("SELECT DISTINCT wait_ns, unsplit_reason FROM collectives").fetchall()
        assert found == [(None, "a kernel that computes and communicates")]


@pytest.mark.parametrize("threads", [3, 40])
def test_operators_and_steps_of_many_threads_are_kept_apart(tmp_path, threads):
    """However many they are: a server may have one for each request."""
    events = []
    for n in range(threads):
        events += [mark(f"decode_step_{n + 1}", n * 100.0, 50.0, tid=10 + n)]
        events += [span("cpu_op", "aten::linear", n * 100.0 + 5, 20.0, tid=10 + n)]
    for n in range(threads):
        events += [span("cpu_op", "aten::mm", n * 100.0 + 6, 9.0, tid=10 + n)]
        events += launched(n + 1, n * 100.0 + 7, n * 100.0 + 60, 10.0, tid=10 + n)
    found = rows(tmp_path, text(events, TP2))
    operators = [row for row in found["spans"] if row["name"].startswith("aten")]
    assert [row["name"] for row in operators] == ["aten::linear"] * threads
    assert [row["step"] for row in operators] == list(range(1, threads + 1))
    assert [row["step"] for row in device_spans(found)] == list(range(1, threads + 1))


def test_steps_that_do_not_say_their_phase_are_divided_too(tmp_path):
    """`ProfilerStep#N` is all that most traces have."""
    events = []
    for n in range(3):
        events += [mark(f"ProfilerStep#{n + 4}", n * 100.0, 90.0)]
        events += launched(n + 1, n * 100.0 + 10, n * 100.0 + 20, 30.0)
    (tmp_path / "rank0.json").write_text(text(events, TP2))
    with connect(ingest_paths([tmp_path], tmp_path / "d.duckdb")) as con:
        found = con.sql(
            "SELECT phase, step, window_ns, compute_ns FROM step_breakdown ORDER BY step"
        ).fetchall()
        summed = con.sql("SELECT phase, units, window_ns FROM rank_breakdown").fetchall()
    assert found == [
        (None, 4, 100_000, 30_000),
        (None, 5, 100_000, 30_000),
        (None, 6, 30_000, 30_000),
    ]
    assert sorted(summed, key=str) == [("all", None, 230_000), (None, 3, 230_000)]


def test_forward_passes_without_requests_are_not_decoding(tmp_path):
    events = []
    for n, name in enumerate(("step[DECODE bs=2]", "step[IDLE]", "step[DECODE bs=2]")):
        events += [mark(name, n * 100.0, 90.0)]
        events += launched(n + 1, n * 100.0 + 10, n * 100.0 + 20, 30.0)
    (tmp_path / "x-TP-0.json").write_text(text(events, TP2))
    with connect(ingest_paths([tmp_path], tmp_path / "d.duckdb")) as con:
        found = con.sql("SELECT units, compute_ns FROM rank_breakdown WHERE phase = 'decode'")
        assert found.fetchall() == [(2, 60_000)]


def test_where_only_copies_were_kept_the_device_is_not_called_idle(tmp_path):
    events = [event for event in decode_events() if event.get("cat") != "kernel"]
    events += launched(16, 240.0, 300.0, 2.0, "Memcpy DtoH (Device -> Pinned)", "gpu_memcpy")
    (tmp_path / "rank0.json").write_text(text(events, TP2))
    with connect(ingest_paths([tmp_path], tmp_path / "d.duckdb")) as con:
        parts = "SELECT idle_ns, unresolved_ns, memcpy_ns FROM rank_breakdown WHERE phase = 'all'"
        assert con.sql(parts).fetchall() == [(0, 186_500, 5_500)]
        ((reason,),) = con.sql("SELECT reason FROM collection").fetchall()
    assert reason.startswith("4 launches show no kernel")


def without_arguments(events):
    return [{key: value for key, value in event.items() if key != "args"} for event in events]


def without_calls_ids(events):
    """As rocpd writes calls in Kineto's form."""
    return [
        {**event, "args": {"External id": 5}} if event.get("cat") == "cuda_runtime" else event
        for event in events
    ]


@pytest.mark.parametrize("stripped", [without_arguments, without_calls_ids])
def test_flows_tell_launches_where_arguments_do_not(tmp_path, stripped):
    odd = [{"ph": "s", "cat": "ac2g", "id": [], "ts": 1.0}, {"ph": "f", "cat": "ac2g", "ts": "x"}]
    found = rows(tmp_path, text(stripped(decode_events()) + odd, TP2))
    assert [row["step"] for row in device_spans(found)] == [1, 1, None, 2, 2]
    assert [row["launch_ns"] - BASE for row in device_spans(found)[:2]] == [110_000, 120_000]


def test_without_flows_and_arguments_work_is_of_no_step(tmp_path):
    events = [event for event in without_arguments(decode_events()) if event["ph"] == "X"]
    found = rows(tmp_path, text(events, TP2))
    assert {row["step"] for row in device_spans(found)} == {None}
