"""Eager event pairs against measured floors: evidence with known parts comes back as them."""

from __future__ import annotations

import pytest

from harness_analysis.build.database import build_database
from harness_analysis.store import open_database
from harness_collectors.reading.arrow import batch

SECOND = 1_000_000_000
LAUNCH_NS, ENQUEUE_NS = 30_000, 12_000
FLOORS = {4096: (9_500, 10_000, 10_750), 16384: (38_000, 40_000, 43_000)}


HAND_OVER_NS = 2_500
WAKING_NS = 200_000
"""Nothing was sent before the first call: a link may have slept."""


def floors(op="all_reduce", implementation="nccl", stamped=True, **more):
    rows = [(size, *times) for size, times in FLOORS.items()]
    names = ("bytes", "p10_ns", "p50_ns", "p90_ns")
    columns = {
        name: list(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)
    }
    if stamped:
        columns["stamps_ns"] = [p50 + HAND_OVER_NS for p50 in columns["p50_ns"]]
    columns |= more
    same = {"op": op, "implementation": implementation, "group_size": 2, "source": "floors"}
    return batch(
        "floors", {**columns, **{name: [value] * len(rows) for name, value in same.items()}}
    )


def event_pairs(sizes, waits, source="app_timers", op="all_reduce", apart_ns=SECOND):
    """Two ranks: the event pair begins with the call; its kernel waits, then moves data."""
    columns = {}
    for seq, size in enumerate(sizes):
        for rank in (0, 1):
            called = SECOND + seq * apart_ns
            returned = called + LAUNCH_NS
            end = returned + waits[rank] + FLOORS.get(size, (0, 20_000))[1]
            row = {"rank": rank, "span_id": seq, "seq": seq, "bytes": size, "step": seq,
                   "start_ns": called, "enqueue_ns": called - ENQUEUE_NS, "return_ns": returned,
                   "end_ns": end, "duration_ns": end - called}  # fmt: skip
            same = {"source": source, "timeline": "device", "comm_group": "[0,1]#0", "op": op,
                    "group_size": 2, "phase": "decode", "batch": 0, "repeat": 0,
                    "microbatch": 0}  # fmt: skip
            if op in ("send", "recv"):
                same |= {"op": ("send", "recv")[rank], "src_rank": 0, "dst_rank": 1}
            for name, value in {**row, **same}.items():
                columns.setdefault(name, []).append(value)
    return batch("collectives", columns)


def query(tmp_path, batches, sql):
    path = tmp_path / "run.duckdb"
    build_database(path, "r", {"name": "r", "device": "cuda"}, batches)
    with open_database(path) as con:
        return con.execute(sql).fetchall()


SPLIT = """
    SELECT rank, wait_method, transfer_ns, wait_ns, wait_error_ns, floor_ns, unsplit_reason
    FROM collectives ORDER BY seq, rank
"""


def test_a_floor_splits_what_event_pairs_only_bound(tmp_path):
    batches = [floors(), event_pairs([4096], waits=(250_000, 0))]
    rows = query(tmp_path, batches, SPLIT)
    assert rows == [
        (0, "floor", 10_000, 250_000, 101_250 + WAKING_NS, 10_000, None),
        (1, "floor", 10_000, 0, 101_250 + WAKING_NS, 10_000, None),
    ]


@pytest.mark.parametrize(
    ("apart_ns", "wait_ns", "waking_ns"),
    [
        (1_000_000, 250_000, 0),
        (20_000_000, 250_000, WAKING_NS),
        (20_000_000, 18_000_000, WAKING_NS),  # it waits soon, but nothing moves for 20 ms
    ],
)
def test_only_behind_a_silence_a_link_may_have_to_wake(tmp_path, apart_ns, wait_ns, waking_ns):
    pairs = event_pairs([4096, 4096], waits=(wait_ns, 0), apart_ns=apart_ns)
    rows = query(tmp_path, [floors(), pairs], SPLIT)
    assert [row[4] for row in rows] == [101_250 + WAKING_NS] * 2 + [101_250 + waking_ns] * 2


def test_between_two_sizes_the_floor_is_straight_in_logarithms(tmp_path):
    rows = query(tmp_path, [floors(), event_pairs([8192], waits=(50_000, 0))], SPLIT)
    # Halfway between 4096 and 16384 on a log axis: the geometric mean of 10 and 40 us.
    assert [row[5] for row in rows] == [20_000, 20_000]
    assert [(row[2], row[3]) for row in rows] == [(20_000, 50_000), (20_000, 0)]


@pytest.mark.parametrize("size", [2048, 32768])
def test_outside_the_measured_sizes_it_stays_bounded(size, tmp_path):
    rows = query(tmp_path, [floors(), event_pairs([size], waits=(50_000, 0))], SPLIT)
    assert {row[1:6] for row in rows} == {("bounded", None, None, None, None)}


@pytest.mark.parametrize("other", [{"op": "all_gather"}, {"implementation": "symm_one_shot"}])
def test_a_floor_of_something_else_splits_nothing(other, tmp_path):
    rows = query(tmp_path, [floors(**other), event_pairs([4096], waits=(50_000, 0))], SPLIT)
    assert {row[1] for row in rows} == {"bounded"}


def test_a_call_shorter_than_its_floor_transfers_all_the_time_and_never_waits(tmp_path):
    pairs = event_pairs([4096], waits=(-39_000, 0))
    rows = query(tmp_path, [floors(), pairs], SPLIT)
    assert rows[0][2:4] == (1_000, 0)


def test_messages_have_the_floor_of_a_pair(tmp_path):
    batches = [floors("send_recv"), event_pairs([4096], waits=(0, 70_000), op="send")]
    rows = query(tmp_path, batches, SPLIT)
    assert [(row[1], row[2], row[3]) for row in rows] == [
        ("floor", 10_000, 0),
        ("floor", 10_000, 70_000),
    ]


@pytest.mark.parametrize(
    ("source", "stamped", "floor"),
    [
        ("torch_profiler", True, 10_000),
        ("graph_events", True, 10_000 + HAND_OVER_NS),
        ("graph_events", False, None),
    ],
)
def test_what_kernels_and_stamps_say_is_kept_and_compared(tmp_path, source, stamped, floor):
    pairs = event_pairs([4096], waits=(250_000, 2_000), source=source)
    rows = query(
        tmp_path,
        [floors(stamped=stamped), pairs],
        "SELECT wait_method, transfer_ns, floor_ns, excess_ns, sum_wait_ns FROM collective_waits",
    )
    # Both lasted 30 us of launch longer than they waited and moved data: the shorter transfers.
    excess = None if floor is None else 42_000 - floor
    assert rows == [("end_anchored", 42_000, floor, excess, 248_000)]


@pytest.mark.parametrize(
    ("transfer", "excess"), [(10_900, 900), (10_000, 0), (8_700, 0), (7_500, 0), (7_100, -400)]
)
def test_a_transfer_between_the_warm_floor_and_that_behind_other_work_is_in_its_place(
    tmp_path, transfer, excess
):
    shorter = transfer - LAUNCH_NS - FLOORS[4096][1]
    pairs = event_pairs([4096], (shorter, 0), "torch_profiler")
    sql = "SELECT transfer_ns, floor_ns, floor_warm_ns, excess_ns FROM collective_waits"
    rows = query(tmp_path, [floors(warm_ns=[7_500, 30_000]), pairs], sql)
    assert rows == [(transfer, 10_000, 7_500, excess)]


def test_the_range_of_a_floor_is_part_of_the_error_of_what_it_splits(tmp_path):
    batches = [floors(warm_ns=[7_500, 30_000]), event_pairs([4096], waits=(250_000, 0))]
    assert {row[4] for row in query(tmp_path, batches, SPLIT)} == {102_500 + WAKING_NS}


def test_instances_of_floors_say_so_and_name_nobody(tmp_path):
    rows = query(
        tmp_path,
        [floors(), event_pairs([4096], waits=(250_000, 0))],
        "SELECT wait_method, wait_error_ns, transfer_ns, excess_ns, sum_wait_ns, last_arriver "
        "FROM collective_waits",
    )
    assert rows == [("floor", 101_250 + WAKING_NS, 10_000, 0, 250_000, None)]
