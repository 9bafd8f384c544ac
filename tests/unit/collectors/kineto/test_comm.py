"""Communication in Kineto traces: groups, ordinals, operations, peers, sizes."""

from __future__ import annotations

import pytest
from unit.collectors.kineto.traces import (
    ALLREDUCE,
    BASE,
    SENDRECV,
    collective,
    decode_events,
    device_spans,
    groups,
    launched,
    mark,
    rows,
    text,
)

from harness_collectors.kineto.columns import CommLabel
from harness_collectors.kineto.comm import Groups

TP2 = groups((0, 1))


def test_collectives_of_decode(tmp_path):
    found = rows(tmp_path, text(decode_events(), TP2))
    first, second = found["collectives"]
    assert (first["comm_group"], first["group_size"], first["op"]) == ("[0,1]#0", 2, "all_reduce")
    assert (first["bytes"], first["dtype"], first["kernel"]) == (4096, "bfloat16", ALLREDUCE)
    assert (first["seq"], second["seq"], first["step"], second["step"]) == (0, 1, 1, 2)
    assert (first["enqueue_ns"], first["start_ns"]) == (BASE + 120_000, BASE + 155_001)
    assert (first["duration_ns"], first["unsplit_reason"]) == (30_250, None)
    spans = {row["span_id"]: row["name"] for row in found["spans"]}
    assert spans[first["span_id"]] == ALLREDUCE


@pytest.mark.parametrize(
    ("spelt", "dtype", "size"), [("bfloat16", "bfloat16", 4096), ("complex64", "complex64", 16384)]
)
def test_types_as_python_spells_them(tmp_path, spelt, dtype, size):
    events = launched(1, 10.0, 100.0, 5.0, ALLREDUCE, **collective(dtype=spelt, ranks=[0, 1]))
    (row,) = rows(tmp_path, text(events, TP2))["collectives"]
    assert (row["comm_group"], row["dtype"], row["bytes"]) == ("[0,1]#0", dtype, size)


def test_ordinals_follow_the_device_whatever_the_order_in_the_file(tmp_path):
    events = [
        *launched(2, 20.0, 200.0, 5.0, ALLREDUCE, stream=9, **collective()),
        *launched(1, 10.0, 100.0, 5.0, ALLREDUCE, stream=7, **collective()),
        *launched(3, 30.0, 150.0, 5.0, ALLREDUCE, **collective(group="1", ranks="[0, 2]")),
    ]
    info = groups((0, 1, 2, 3), (0, 2), world_size=4)
    seq = {
        r["start_ns"]: (r["comm_group"], r["seq"])
        for r in rows(tmp_path, text(events, info))["collectives"]
    }
    group = seq[BASE + 100_000][0]
    assert seq == {
        BASE + 200_000: (group, 1),
        BASE + 100_000: (group, 0),
        BASE + 150_000: ("[0,2]#0", 0),
    }


def test_groups_of_the_same_ranks_are_told_apart_by_creation(tmp_path):
    events = [
        *launched(1, 10.0, 100.0, 5.0, ALLREDUCE, **collective(group="2")),
        *launched(2, 20.0, 200.0, 5.0, ALLREDUCE, **collective(group="0")),
    ]
    found = rows(tmp_path, text(events, groups((0, 1), (0,), (0, 1))))
    assert [row["comm_group"] for row in found["collectives"]] == ["[0,1]#1", "[0,1]#0"]


def test_shortened_rank_lists_are_looked_up(tmp_path):
    world = tuple(range(40))
    short = "[0, 1, 2, ..., 39]"
    events = launched(1, 10.0, 100.0, 5.0, ALLREDUCE, **collective(ranks=short, group="0"))
    known = rows(tmp_path, text(events, groups(world, world_size=40)))["collectives"][0]
    assert known["group_size"] == 40
    assert known["comm_group"] == f"[{','.join(map(str, world))}]#0"
    lost = rows(tmp_path, text(events, None))["collectives"][0]
    assert (lost["comm_group"], lost["seq"], lost["group_size"]) == (None, None, 2)
    assert lost["unsplit_reason"] == "ranks of process group 0 not recorded"


@pytest.mark.parametrize(
    ("info", "group", "size", "reason"),
    [
        (groups((0, 1)), "[0,1]#0", 2, None),
        (groups((0, 1), (0, 1), (0,)), "[0,1]#?", 2, None),
        (groups((0, 1, 2, 3), (0, 1)), "world?", None, "process group not recorded"),
        ({"rank": 0, "world_size": 8}, "default", 8, None),
        (None, "world?", None, "process group not recorded"),
    ],
)
def test_kernels_that_name_no_group(tmp_path, info, group, size, reason):
    found = rows(tmp_path, text(launched(1, 10.0, 20.0, 5.0, ALLREDUCE), info))["collectives"][0]
    assert (found["comm_group"], found["group_size"], found["unsplit_reason"]) == (
        group,
        size,
        reason,
    )
    assert (found["op"], found["bytes"], found["seq"]) == ("all_reduce", None, 0)


def test_point_to_point_counts_in_the_ordered_pair(tmp_path):
    send = collective("send", **{"Dst Rank": 1})
    recv = collective("recv", **{"Src Rank": 1})
    events = [
        *launched(1, 10.0, 100.0, 5.0, SENDRECV, **send),
        *launched(2, 20.0, 200.0, 5.0, SENDRECV, **recv),
        *launched(3, 30.0, 300.0, 5.0, SENDRECV, **send),
    ]
    found = rows(tmp_path, text(events, TP2))["collectives"]
    assert [(r["op"], r["src_rank"], r["dst_rank"], r["seq"]) for r in found] == [
        ("send", 0, 1, 0),
        ("recv", 1, 0, 0),
        ("send", 0, 1, 1),
    ]


def test_operation_and_peers_from_the_annotation_around_the_launch(tmp_path):
    events = [
        mark("nccl:send 1->0", 5.0, 10.0),
        *launched(1, 10.0, 100.0, 5.0, SENDRECV),
        mark("nccl:coalesced", 20.0, 10.0),
        *launched(2, 22.0, 200.0, 5.0, SENDRECV),
        mark("nccl:all_to_all", 30.0, 10.0),
        *launched(3, 35.0, 300.0, 5.0, SENDRECV),
    ]
    info = groups((2, 5), rank=5, world_size=8)
    found = rows(tmp_path, text(events, info))["collectives"]
    assert [(r["op"], r["src_rank"], r["dst_rank"]) for r in found] == [
        ("send", 5, 2),
        (None, None, None),
        ("all_to_all", None, None),
    ]
    assert [r["seq"] for r in found] == [0, None, 0]
    assert found[1]["unsplit_reason"] == "point-to-point calls of several peers in one kernel"


def test_sendrecv_kernels_of_old_files_are_all_to_all(tmp_path):
    old = launched(1, 10.0, 100.0, 5.0, "ncclKernel_SendRecv_RING_SIMPLE_Sum_int8_t(ncclDevComm*)")
    found = rows(tmp_path, text(old, {"rank": 0, "world_size": 8}, base=None))["collectives"][0]
    assert (found["op"], found["bytes"], found["comm_group"]) == ("all_to_all", None, "default")
    named = [*old, *launched(2, 20.0, 200.0, 5.0, ALLREDUCE, **collective())]
    found = rows(tmp_path, text(named, TP2))["collectives"][0]
    assert (found["op"], found["seq"]) == (None, None)


@pytest.mark.parametrize(
    ("op", "in_elements", "out_elements", "canonical", "num_bytes"),
    [
        ("allreduce", 8, 8, "all_reduce", 16),
        ("_allgather_base", 8, 16, "all_gather", 32),
        ("_reduce_scatter_base", 16, 8, "reduce_scatter", 32),
        ("all_to_allv", 8, 8, "all_to_all", 16),
        ("broadcast", 8, 8, "broadcast", 16),
        ("barrier", 0, 0, "barrier", None),
        ("something new", 8, 8, None, None),
    ],
)
def test_sizes_follow_nccl_tests(tmp_path, op, in_elements, out_elements, canonical, num_bytes):
    args = collective(op, **{"In msg nelems": in_elements, "Out msg nelems": out_elements})
    found = rows(tmp_path, text(launched(1, 1.0, 2.0, 1.0, ALLREDUCE, **args), TP2))
    assert [(r["op"], r["bytes"]) for r in found["collectives"]] == [(canonical, num_bytes)]


def test_unequal_splits_and_fused_kernels_say_why_they_stay_unsplit(tmp_path):
    uneven = collective("all_to_allv", **{"In split size": "[3, 5]"})
    fused = (
        "void flashinfer::trtllm_allreduce_fusion::allreduce_fusion_kernel_oneshot_lamport<1>(P)"
    )
    events = [*launched(1, 1.0, 2.0, 1.0, SENDRECV, **uneven), *launched(2, 3.0, 4.0, 1.0, fused)]
    found = rows(tmp_path, text(events, TP2))
    assert [row["unsplit_reason"] for row in found["collectives"]] == [
        "unequal splits",
        "a kernel that computes and communicates",
    ]
    assert [row["category"] for row in device_spans(found)] == ["comm", "comm_fused"]


def test_channels_are_the_grid_of_nccl_kernels_only(tmp_path):
    grid = {"grid": [24, 1, 1]}
    custom = "void vllm::cross_device_reduce_1stage<__nv_bfloat16, 2>(vllm::RankData*)"
    events = [
        *launched(1, 1.0, 2.0, 1.0, ALLREDUCE, **collective(), **grid),
        *launched(2, 3.0, 4.0, 1.0, custom, **grid),
    ]
    found = rows(tmp_path, text(events, TP2))["collectives"]
    assert [(row["op"], row["channels"]) for row in found] == [
        ("all_reduce", 24),
        ("all_reduce", None),
    ]


def numbered(*numbers):
    """All-reduces with torch's own sequence numbers."""
    return [
        event
        for place, number in enumerate(numbers)
        for event in launched(
            place + 1, 10.0 * place, 10.0 * place + 5, 4.0, ALLREDUCE, **collective(Seq=number)
        )
    ]


@pytest.mark.parametrize(
    ("numbers", "seq"),
    [
        ((41, 42, 45), [41, 42, 45]),
        ((7, 7, 8), [0, 1, 2]),
        ((3, 2, 1), [0, 1, 2]),
        ((1, -1), [0, 1]),
    ],
)
def test_recorded_sequence_numbers_are_taken_where_they_order_the_group(tmp_path, numbers, seq):
    found = rows(tmp_path, text(numbered(*numbers), TP2))
    assert [row["seq"] for row in found["collectives"]] == seq


def label(name, ranks):
    return CommLabel("allreduce", None, name, ranks, 2, False)


def test_groups_of_the_same_ranks_are_counted_as_torch_made_them():
    """On-demand traces write ranks as text, in any order, and only groups that were used."""
    entries = [
        {"pg_name": "5", "pg_desc": "tp", "pg_size": 2, "ranks": "[0, 1]"},
        {"pg_name": "0", "pg_desc": "default_pg", "pg_size": 2, "ranks": "[0, 1]"},
    ]
    asked = [label("0", "[0, 1]"), label("5", "[0, 1]")]
    both = Groups({"world_size": 2, "pg_config": entries})
    assert [both.of(each).name for each in asked] == ["[0,1]#0", "[0,1]#1"]
    one = Groups({"world_size": 2, "pg_config": entries[:1]})
    assert one.of(asked[1]).name == "[0,1]#1"
    subgroup = Groups({"world_size": 4, "pg_config": entries[:1]})
    assert subgroup.of(asked[1]).name == "[0,1]#0"


def test_groups_that_only_kernels_name_are_kept_apart():
    asked = [label("2", "[0, 1]"), label("1", "[0, 1]"), label("1", "[2, 3]")]
    groups_ = Groups(None, asked)
    assert [groups_.of(each).name for each in asked] == ["[0,1]#1", "[0,1]#0", "[2,3]#0"]
