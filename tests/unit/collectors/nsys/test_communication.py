"""Communication in a report: groups, operations, sizes and peers, from NCCL's ranges or without."""

from __future__ import annotations

import pytest
from unit.collectors.nsys.exports import (
    ALLREDUCE,
    RUN,
    SENDRECV,
    Report,
    decode,
    of_rank,
    payload,
    rows,
    us,
)


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
