"""What a report becomes: launches, units, ranks, groups, clocks."""

from __future__ import annotations

import json

import pytest
from unit.collectors.nsys.exports import (
    ALLREDUCE,
    DOMAIN,
    EPOCH,
    GEMM,
    MARK,
    SECRET,
    SENDRECV,
    START_END,
    Report,
    decode,
    device_spans,
    payload,
    rows,
    state,
    tables,
    units,
)

VERSIONS = ("2.9.1", "3.7.2", "3.25.0")
RUN = {"run_id": "r"}


def of_rank(found, rank, table="spans"):
    return [row for row in found[table] if row["rank"] == rank]


def named(found, name):
    return [row for row in found["spans"] if row["name"] == name]


def us(microseconds):
    return EPOCH + round(microseconds * 1000)


# -- device work ---------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_work_belongs_to_the_unit_of_its_launch_in_its_own_process(version, tmp_path):
    """Both processes use the same correlation ids: joining by those alone would mix them up."""
    found = rows(tmp_path, decode(version))
    for rank in (0, 1):
        work = [row for row in device_spans(found) if row["rank"] == rank]
        assert [(row["correlation"], row["step"]) for row in work] == [
            (11, 1), (12, 1), (14, 2), (15, 2), (999, None), (13, None),
        ]  # fmt: skip
        assert {row["device"] for row in work} == {rank}
        launches = {row["correlation"]: row["launch_ns"] for row in work}
        assert launches == {
            11: us(110), 12: us(120), 13: us(155), 14: us(170), 15: us(180), 999: None,
        }  # fmt: skip
        first = work[0]
        assert (first["start_ns"], first["end_ns"]) == (us(130.125), us(150.625))
        assert first["raw_start_ns"] == 130_125
        assert (first["name"], first["category"], first["rule"]) == (GEMM, "compute", "gemm")


@pytest.mark.parametrize("version", VERSIONS)
def test_units_are_spans_of_the_host(version, tmp_path):
    found = rows(tmp_path, decode(version))
    spans = [(row["rank"], row["step"], row["start_ns"], row["end_ns"]) for row in units(found)]
    assert spans == [
        (rank, step, us(start), us(start + 50))
        for rank in (0, 1)
        for step, start in ((1, 100), (2, 160))
    ]
    assert {(row["phase"], row["stream"], row["rule"]) for row in units(found)} == {
        ("decode", 0, "decode-step")
    }


def test_a_launch_by_another_thread_belongs_to_the_unit(tmp_path):
    report = Report()
    process = report.process(700)
    process.range("decode_step_4", 0, 100)
    process.call(1, 50, thread=702)
    process.kernel(1, 300, 5)
    (work,) = device_spans(rows(tmp_path, report))
    assert (work["step"], work["launch_ns"]) == (4, us(50))


def test_kernels_of_a_graph_replay_belong_to_its_launch(tmp_path):
    report = Report()
    process = report.process(700)
    process.range("decode_step_7", 0, 100)
    process.call(5, 10, name="cudaGraphLaunch_v10000")
    for n in range(3):
        process.kernel(5, 200 + 10 * n, 5, graphNodeId=n + 1, graphId=9)
    found = rows(tmp_path, report)
    for row in device_spans(found):
        assert (row["step"], row["graph_id"], row["attrs"]) == (7, 9, '{"graph_launch": true}')
    assert state(found) == ("ok", None)


@pytest.mark.parametrize("version", VERSIONS)
def test_copies_are_named_by_the_exports_own_enumeration(version, tmp_path):
    report = Report(version)
    report.process(700).copy(1, 10, 20, 3, num_bytes=4096, kind=3)
    (copy,) = device_spans(rows(tmp_path, report))
    kind = "kind 3" if version == "2.9.1" else "Host-to-Array"
    assert copy["name"] == f"Memcpy {kind} (Device -> Pinned)"
    assert (copy["category"], copy["bytes"]) == ("memcpy", 4096)


# -- graphs that hide their kernels ----------------------------------------------------------------


def test_a_graph_recorded_as_a_whole_is_neither_compute_nor_idle(tmp_path):
    report = Report()
    process = report.process(700)
    process.range("decode_step_1", 0, 100)
    process.graph(3, 10, 40, 500)
    found = rows(tmp_path, report)
    (work,) = device_spans(found)
    assert (work["category"], work["step"], work["graph_id"]) == ("graph", 1, 5)
    verdict, reason = state(found)
    assert verdict == "degraded"
    assert reason.startswith("1 CUDA graphs are recorded as a whole")


def test_graph_launches_without_any_device_work_are_told(tmp_path):
    report = Report()
    process = report.process(700)
    process.launched(1, 10, 20, 5)
    process.call(2, 30, name="cudaGraphLaunch_v10000")
    verdict, reason = state(rows(tmp_path, report))
    assert (verdict, reason.partition(":")[0]) == (
        "degraded",
        "1 launches of CUDA graphs show no device work",
    )


def test_cuda_traced_without_device_work_is_told(tmp_path):
    report = Report()
    report.process(700).range("decode_step_1", 0, 100)
    report.add("META_DATA_CAPTURE", name="CAPTURE_EVENT_TYPE", value="Cuda")
    assert state(rows(tmp_path, report)) == (
        "degraded",
        "CUDA was traced, but no device work is on record",
    )


# -- ranges --------------------------------------------------------------------------------------


def test_operators_keep_their_names_and_lose_their_numbers(tmp_path):
    report = Report()
    process = report.process(700)
    process.range("aten::linear, seq = 12, op_id = 7", 0, 100)
    process.range("aten::mm, op_id = 8", 10, 10, registered=True)  # inside the first one
    process.range("aten::mm, op_id = 9", 10, 10, thread=777)
    process.range("load, then run", 200, 10)
    process.launched(1, 20, 30, 5)
    found = rows(tmp_path, report)
    host = [(row["name"], row["rule"]) for row in found["spans"] if row["timeline"] == "host"]
    assert host == [
        ("cudaLaunchKernel_v7000", "runtime"),
        ("aten::linear", "host-launch"),
        ("aten::mm", "host-launch"),
        ("load, then run", "annotation"),
    ]


def test_open_ranges_have_no_end(tmp_path):
    report = Report()
    report.add("ANALYSIS_DETAILS", globalVid=1, duration=900_000, startTime=0, stopTime=900_000)
    process = report.process(700)
    process.range("decode_step_1", 100, None)
    report.process(701).range("decode_step_1", 500, 400)  # nsys ends it with the recording
    process.range("whole", 20, 30, kind=START_END)
    process.range("domain", 1, None, kind=DOMAIN)
    process.range("a moment", 1, None, kind=MARK)
    found = rows(tmp_path, report)
    assert [(row["end_ns"], row["complete"]) for row in units(found)] == [(None, False)] * 2
    assert [row["name"] for row in found["spans"] if row["category"] == "other"] == ["whole"]


def test_sizes_in_marks_become_steps(tmp_path):
    report = Report()
    report.process(700).range("execute_context_1(64)_generation_2(2)", 0, 50)
    found = rows(tmp_path, report)
    (step,) = found["steps"]
    assert (step["phase"], step["batch_size"], step["prefill_tokens"]) == ("mixed", 3, 64)


def test_calls_that_touch_files_are_io(tmp_path):
    report = Report()
    process = report.process(700)
    process.range("load", 0, 100)
    for name, start in (("pread64", 10), ("poll", 30)):
        report.add(
            "OSRT_API", start=start * 1000, end=start * 1000 + 5000, eventClass=27,
            globalTid=process.tid, nameId=report.text(name), returnValue=0, nestingLevel=0,
        )  # fmt: skip
    found = rows(tmp_path, report)
    (io,) = [row for row in found["spans"] if row["category"] == "io"]
    assert (io["name"], io["rule"], io["stream"]) == ("pread64", "osrt-file", 0)
    assert named(found, "poll") == []


# -- communication -------------------------------------------------------------------------------


def test_payloads_tell_group_size_bytes_and_order(tmp_path):
    found = rows(tmp_path, decode())
    for rank in (0, 1):
        told = [
            (row["comm_group"], row["seq"], row["op"], row["bytes"], row["group_size"])
            for row in of_rank(found, rank, "collectives")
        ]
        assert told == [("[0,1]#0", n, "all_reduce", 4096, 2) for n in (0, 1)]
    row = found["collectives"][0]
    assert (row["dtype"], row["channels"], row["kernel"]) == ("bfloat16", 24, ALLREDUCE)
    assert row["unsplit_reason"] is None
    assert row["enqueue_ns"] == us(120)


def test_without_payloads_the_group_is_unknown(tmp_path):
    found = rows(tmp_path, decode(payloads=False))
    assert {(r["comm_group"], r["op"], r["unsplit_reason"]) for r in found["collectives"]} == {
        ("world?", "all_reduce", "process group not recorded")
    }
    assert [row["seq"] for row in of_rank(found, 1, "collectives")] == [0, 1]


def test_in_a_run_of_ours_the_group_is_left_to_the_recorder(tmp_path):
    found = rows(tmp_path, decode(payloads=False), run=RUN)
    assert {(r["comm_group"], r["seq"], r["op"]) for r in found["collectives"]} == {
        (None, None, "all_reduce")
    }


def nccl_call(process, name, start, comm=5, num_bytes=64, peer=None):
    blob = payload("collective", comm, num_bytes)
    if peer is not None:
        blob = payload("pair", comm, num_bytes, peer)
    process.range(name, start, 1, registered=True, binaryData=blob)


def group(process, start, calls, correlations):
    """NCCL's calls between a group's start and its end, which launches the kernels."""
    process.range("ncclGroupStart", start, 1, registered=True)
    for place, (name, num_bytes, peer) in enumerate(calls, 2):
        nccl_call(process, name, start + place, num_bytes=num_bytes, peer=peer)
    end = start + len(calls) + 3
    process.range("ncclGroupEnd", end, 20, registered=True)
    for place, (correlation, kernel) in enumerate(correlations):
        process.launched(correlation, end + 5 + place, end + 30 + 10 * place, 8, kernel)


def two_ranks(report):
    processes = [report.process(pid) for pid in (700, 701)]
    for rank, process in enumerate(processes):
        blob = payload("init", 5, 2, rank)
        process.range("ncclCommInitRank", 0, 5, registered=True, binaryData=blob)
    return processes


def test_a_group_of_collectives_is_one_kernel_each(tmp_path):
    report = Report()
    for process in two_ranks(report):
        calls = [("ncclAllReduce", 64, None), ("ncclAllGather", 32, None)]
        gather = "ncclDevKernel_AllGather_RING_LL(ncclDevKernelArgsStorage<4096ul>)"
        group(process, 10, calls, [(1, ALLREDUCE), (2, gather)])
    found = rows(tmp_path, report)
    told = [(row["op"], row["bytes"], row["seq"]) for row in of_rank(found, 0, "collectives")]
    assert told == [("all_reduce", 64, 0), ("all_gather", 64, 1)]


def test_send_and_receive_name_their_ends(tmp_path):
    report = Report()
    for rank, process in enumerate(two_ranks(report)):
        name = "ncclRecv" if rank else "ncclSend"
        group(process, 10, [(name, 4096, 1 - rank)], [(1, SENDRECV)])
    found = rows(tmp_path, report)
    told = [(r["op"], r["src_rank"], r["dst_rank"], r["bytes"], r["seq"]) for r in
            found["collectives"]]  # fmt: skip
    assert told == [("send", 0, 1, 4096, 0), ("recv", 0, 1, 4096, 0)]


EXCHANGE = [("ncclSend", 32, 0), ("ncclRecv", 32, 0), ("ncclSend", 32, 1), ("ncclRecv", 32, 1)]


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        (EXCHANGE, ("all_to_all", 64, None)),
        ([("ncclSend", 8, 0), *EXCHANGE[1:]], ("all_to_all", 40, "unequal splits")),
        (EXCHANGE[:3], (None, None, "point-to-point calls of several peers in one kernel")),
    ],
)
def test_an_exchange_with_every_rank_is_all_to_all(calls, expected, tmp_path):
    report = Report()
    for process in two_ranks(report):
        group(process, 10, calls, [(1, SENDRECV)])
    for row in rows(tmp_path, report)["collectives"]:
        assert (row["op"], row["bytes"], row["unsplit_reason"]) == expected


@pytest.mark.parametrize(
    ("around", "expected"),
    [
        ("c10d::alltoall_base_, op_id = 9", "all_to_all"),
        ("nccl:all_to_all", "all_to_all"),
        ("nccl:send 0->1", "send"),
        ("forward", None),
    ],
)
def test_torchs_ranges_name_what_a_kernel_leaves_open(around, expected, tmp_path):
    report = Report()
    process = report.process(700)
    process.range(around, 0, 50)
    process.launched(1, 10, 100, 5, SENDRECV)
    (row,) = rows(tmp_path, report)["collectives"]
    assert row["op"] == expected
    if expected is None:
        assert row["unsplit_reason"].startswith("send, receive or all-to-all")


# -- ranks ---------------------------------------------------------------------------------------


def ranks_from(found):
    return [json.loads(row["detail"])["ranks_from"] for row in found["collection"]]


def test_ranks_by_the_order_of_processes_are_told_as_such(tmp_path):
    found = rows(tmp_path, decode(payloads=False))
    assert ranks_from(found) == ["the order of processes"]
    assert state(found)[1].startswith("ranks are numbered in the order of processes")
    assert [(row["rank"], row["pid"], row["device"]) for row in found["ranks"]] == [
        (0, 700, "cuda:0"),
        (1, 701, "cuda:1"),
    ]


def test_ranks_by_nccls_communicators(tmp_path):
    """The rank in the largest communicator counts, whatever the order of processes is."""
    report = Report()
    for pid, rank in ((700, 1), (701, 0)):
        process = report.process(pid)
        process.range(
            "ncclCommInitRank", 0, 5, registered=True, binaryData=payload("init", 5, 2, rank)
        )
        process.launched(1, 10, 20, 5)
    found = rows(tmp_path, report)
    assert ranks_from(found) == ["NCCL's communicators"]
    assert {row["pid"]: row["rank"] for row in found["ranks"]} == {700: 1, 701: 0}


def one(pid=700, device=0):
    report = Report()
    report.process(pid).launched(1, 10, 20, 5, device=device)
    return report


@pytest.mark.parametrize("name", ["rank-00003.sqlite", "profile_rank3.sqlite", "x.rank_3.sqlite"])
def test_the_rank_of_a_files_name(name, tmp_path):
    found = rows(tmp_path, one(), name)
    assert (ranks_from(found), found["ranks"][0]["rank"]) == (["the file's name"], 3)


def test_several_reports_without_names_are_numbered_on(tmp_path):
    paths = [one(700 + n).write(tmp_path / f"report{n}.sqlite") for n in (1, 2)]
    found = tables(paths, tmp_path)
    assert [(row["rank"], row["pid"]) for row in found["ranks"]] == [(0, 701), (1, 702)]


def test_one_process_with_several_devices_is_a_rank_a_device(tmp_path):
    report = Report()
    process = report.process(700)
    process.range("decode_step_1", 0, 100)
    for device in (0, 1):
        process.launched(device + 1, 10 + device, 20, 5, device=device)
    found = rows(tmp_path, report)
    assert ranks_from(found) == ["the device"]
    assert [(row["rank"], row["step"]) for row in device_spans(found)] == [(0, 1), (1, 1)]
    assert [row["rank"] for row in units(found)] == [0]
    assert len(named(found, "cudaLaunchKernel_v7000")) == 2


@pytest.mark.parametrize("version", VERSIONS)
def test_devices_are_identified(version, tmp_path):
    report = decode(version)
    if version != "2.9.1":  # numbers of devices differ from process to process
        for cuda, gpu, pid in ((0, 5, 700), (1, 4, 701)):
            report.add("TARGET_INFO_CUDA_DEVICE", cudaId=cuda, gpuId=gpu, pid=pid)
    found = rows(tmp_path, report)
    expected = ["GPU-0", "GPU-1"] if version == "2.9.1" else ["GPU-1", "GPU-0"]
    assert [row["gpu_uuid"] for row in found["ranks"]] == expected
    assert {row["host"] for row in found["ranks"]} == {"node-a"}


# -- clocks --------------------------------------------------------------------------------------


def test_a_reports_own_clock_is_anchored_at_its_start(tmp_path):
    found = rows(tmp_path, decode())
    assert {(row["raw_ns"], row["wall_ns"]) for row in found["clock_anchors"]} == {(EPOCH, EPOCH)}
    assert {row["clock_domain"] for row in found["ranks"]} == {"nsys:node-a:report.sqlite"}


def test_normalised_times_are_unix_times_already(tmp_path):
    report = Report(epoch=12345)
    report.meta("EXPORT_PARAM_TIME_NORMALIZE", "true")
    now = EPOCH // 1000
    report.process(700).launched(1, now + 10, now + 20, 5)
    (work,) = device_spans(rows(tmp_path, report))
    assert (work["start_ns"], work["launch_ns"]) == (us(20), us(10))


def test_without_a_start_times_stay_relative(tmp_path):
    report = Report(epoch=None)
    report.process(700).launched(1, 10, 20, 5)
    found = rows(tmp_path, report)
    assert device_spans(found)[0]["start_ns"] == 20_000
    assert "clock_anchors" not in found
    assert state(found) == (
        "degraded",
        "the session's start is not recorded: its times fit no other file's",
    )


def test_clock_marks_put_a_report_on_the_monotonic_clock(tmp_path):
    """The mark that was written soonest after its reading is the one that is right."""
    report = Report()
    process = report.process(700)
    for at, late in ((100, 40), (200, 3), (300, 25)):
        mono, wall = 7_000_000 + (at - late) * 1000, EPOCH + (at - late) * 1000
        text = f"harness:clock boot=b-1 mono={mono} wall={wall}"
        process.range(text, at, None, kind=MARK, registered=True)
    process.launched(1, 10, 20, 5)
    found = rows(tmp_path, report)
    assert device_spans(found)[0]["start_ns"] == 7_000_000 + 20_000 - 3_000
    assert {row["clock_domain"] for row in found["clock_anchors"]} == {"b-1"}
    assert [row["wall_ns"] - row["raw_ns"] for row in found["clock_anchors"]] == [
        EPOCH - 7_000_000
    ] * 3


# -- runs of ours ----------------------------------------------------------------------------------


def test_a_run_of_ours_gets_no_second_set_of_units(tmp_path):
    found = rows(tmp_path, decode(), "rank-00000.sqlite", run=RUN)
    assert "ranks" not in found
    assert units(found) == []
    windows = named(found, "nsys.window")
    assert [(row["rank"], row["start_ns"], row["end_ns"]) for row in windows] == [
        (rank, us(10), us(305)) for rank in (0, 1)
    ]
    steps = {row["step"]: row["perturbed_by"] for row in device_spans(found)}
    assert steps == {1: "nsys", 2: "nsys", None: None}
    assert len(named(found, "decode_step_1")) == 2


def test_span_ids_are_unique_in_a_rank(tmp_path):
    paths = [decode().write(tmp_path / f"w{n}.rank-0.sqlite") for n in (1, 2)]
    for run in ({}, RUN):
        found = tables(paths, tmp_path, run)
        ids = [(row["rank"], row["span_id"]) for row in found["spans"]]
        assert len(set(ids)) == len(ids)


# -- secrets -------------------------------------------------------------------------------------


def test_environments_and_output_are_not_read(tmp_path):
    report = decode()
    report.process(700).range(f"token={SECRET}", 0, 1)
    report.process(700).range(f"run {SECRET}", 0, 1, registered=True)
    report.add("DIAGNOSTIC_EVENT", timestamp=1, severity=3, text=f"failed: api_key={SECRET}")
    report.add("TARGET_INFO_SYSTEM_ENV", name="OsDescription", value=f"Linux HF_TOKEN={SECRET}")
    found = rows(tmp_path, report)
    assert SECRET not in json.dumps(found)
    assert state(found) == ("degraded", "nsys: failed: api_key=[redacted]")
