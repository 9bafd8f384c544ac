"""What a report becomes: launches, units, graphs, ranges."""

from __future__ import annotations

import json

import pytest
from unit.collectors.nsys.exports import (
    DOMAIN,
    GEMM,
    MARK,
    RUN,
    SECRET,
    START_END,
    VERSIONS,
    Report,
    decode,
    device_spans,
    named,
    rows,
    state,
    tables,
    units,
    us,
)


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


def test_environments_and_output_are_not_read(tmp_path):
    report = decode()
    report.process(700).range(f"token={SECRET}", 0, 1)
    report.process(700).range(f"run {SECRET}", 0, 1, registered=True)
    report.add("DIAGNOSTIC_EVENT", timestamp=1, severity=3, text=f"failed: api_key={SECRET}")
    report.add("TARGET_INFO_SYSTEM_ENV", name="OsDescription", value=f"Linux HF_TOKEN={SECRET}")
    found = rows(tmp_path, report)
    assert SECRET not in json.dumps(found)
    assert state(found) == ("degraded", "nsys: failed: api_key=[redacted]")
