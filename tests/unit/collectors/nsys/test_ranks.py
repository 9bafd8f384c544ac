"""Which rank a process or device is, and whose clock its times are of."""

from __future__ import annotations

import json

import pytest
from unit.collectors.nsys.exports import (
    EPOCH,
    MARK,
    VERSIONS,
    Report,
    decode,
    device_spans,
    named,
    payload,
    rows,
    state,
    tables,
    units,
    us,
)


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
