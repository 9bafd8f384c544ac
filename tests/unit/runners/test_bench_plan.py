"""What `bench collectives` measures, and how its figures follow from times."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness_runners.bench.plan import (
    ITEM_BYTES,
    OPS,
    BenchPlan,
    Cell,
    Issued,
    bus_factor,
    parse_sizes,
    percentile,
    result_row,
    whole_bytes,
)
from harness_runners.bench.times import Found, Kernel, Times, by_call, over_ranks
from harness_schemas.errors import UsageError


def test_sizes_double_within_a_range_and_stand_alone():
    assert parse_sizes("1KiB:4KiB, 6000") == (1024, 2048, 4096, 6000)
    assert parse_sizes("3 KiB:20kib") == (3072, 6144, 12288)
    assert len(parse_sizes("1KiB:64MiB")) == 17
    assert parse_sizes("") == ()


@pytest.mark.parametrize("text", ["1KB", "-4", "4:2", "0", ":", "1KiB:x", "1e3"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(UsageError, match="--sizes"):
        parse_sizes(text)


def test_factors_are_those_of_nccl_tests():
    # doc/PERFORMANCE.md of nccl-tests: 8 ranks, all-reduce 2 * 7 / 8.
    assert [bus_factor(op, 8) for op in OPS] == [1.75, 0.875, 0.875, 1.0]
    assert [bus_factor(op, 2) for op in OPS] == [1.0, 0.5, 0.5, 1.0]


def test_a_row_gives_percentiles_and_bandwidths_at_the_median():
    cell = Cell("all_reduce", "nccl", 4_000_000, 8)
    found = Found([40_000.0, 20_000.0, 10_000.0], [], [50_000.0], 96)
    row = result_row(cell, "bfloat16", found)
    assert (row["p10_us"], row["p50_us"], row["p90_us"]) == (12.0, 20.0, 36.0)
    assert (row["algbw_gb_s"], row["busbw_gb_s"]) == (200.0, 350.0)
    assert (row["calls"], row["chain_us"], row["stamps_us"]) == (96, 50.0, None)


@given(st.lists(st.floats(1, 1e9), min_size=1, max_size=50), st.floats(0, 1))
def test_percentiles_lie_between_the_extremes_and_grow(values, share):
    found = percentile(values, share)
    assert min(values) * (1 - 1e-9) <= found <= max(values) * (1 + 1e-9)
    assert found <= percentile(values, min(1.0, share + 0.1)) * (1 + 1e-9)


@given(
    st.sampled_from(OPS), st.integers(1, 1 << 20), st.integers(2, 8), st.sampled_from(["float32"])
)
def test_sizes_become_whole_items_on_every_rank(op, size, ranks, dtype):
    found = whole_bytes(op, size, ranks, dtype)
    unit = ITEM_BYTES[dtype] * (ranks if op in ("all_gather", "reduce_scatter") else 1)
    assert found % unit == 0 and found > 0
    assert found <= size or found == unit
    assert size - found < unit


def test_cells_join_the_runs_sizes_and_the_ladder_once_each():
    plan = BenchPlan(
        output="",
        ops=("all_reduce", "send_recv"),
        sizes=(1024, 4096),
        groups=(2, 4),
        issued=(
            Issued("all_reduce", 4096, 2),
            Issued("all_reduce", 6400, 2),
            Issued("send_recv", 6400, 2),
            Issued("all_reduce", 512, 8),  # more ranks than there are
            Issued("all_gather", 512, 2),  # not asked for
        ),
    )
    found = [(cell.op, cell.group_size, cell.bytes) for cell in plan.cells()]
    assert found == [
        ("all_reduce", 2, 1024),
        ("all_reduce", 2, 4096),
        ("all_reduce", 2, 6400),
        ("all_reduce", 4, 1024),
        ("all_reduce", 4, 4096),
        ("send_recv", 2, 1024),
        ("send_recv", 2, 4096),
        ("send_recv", 2, 6400),
    ]
    assert {cell.implementation for cell in plan.cells()} == {"gloo"}


def test_symmetric_memory_is_measured_for_all_reduces_on_gpus_only():
    plan = BenchPlan(output="", sizes=(1024,), groups=(2,), device="cuda", dtype="bfloat16")
    by_op = {}
    for cell in plan.cells():
        by_op.setdefault(cell.op, set()).add(cell.implementation)
    assert by_op.pop("all_reduce") == {"nccl", "symm_one_shot", "symm_two_shot"}
    assert set(map(frozenset, by_op.values())) == {frozenset({"nccl"})}


def test_ranks_read_what_the_session_wrote(tmp_path):
    plan = BenchPlan("o.json", ("all_reduce",), (8,), (2,), (Issued("all_reduce", 9, 2),))
    plan.write(tmp_path / "plan.json")
    assert BenchPlan.read(tmp_path / "plan.json") == plan


def test_of_a_call_the_shortest_rank_counts_and_of_a_chain_the_longest():
    ranks = [Times([9.0, 8.0], [5.0, 6.0], [4.0, 3.0]), Times([7.0, 9.5], [4.5, 9.0], [2.0, 8.0])]
    assert over_ranks(ranks, 4) == Found([2.0, 3.0], [4.5, 6.0], [9.0, 9.5], 2)
    on_cpu = [Times([9.0, 8.0]), Times([7.0, 9.5])]
    assert over_ranks(on_cpu, 4) == Found([9.0, 9.5], [], [9.0, 9.5], 8)
    warm = [Times([9.0], [5.0], [4.0], [3.5], [2.5]), Times([7.0], [4.5], [2.0], [3.0], [1.5])]
    assert over_ranks(warm, 1) == Found([2.0], [4.5], [9.0], 1, [1.5], [3.0])
    # A rank whose kernels could not be told apart leaves the group without kernels.
    assert over_ranks([ranks[0], Times([1.0, 1.0], [1.0, 1.0])], 4).times_ns == [1.0, 1.0]


def test_kernels_of_a_replay_are_told_apart_by_their_order():
    def replay(correlation, *lengths):
        made = []
        for number, length in enumerate(lengths):
            at = 1000 * correlation + 10 * number
            made += [Kernel(correlation, at, 99, "void at::native::vectorized_elementwise_kernel")]
            made += [Kernel(correlation, at + 1, 1, "harness_stamp")]
            made += [
                Kernel(correlation, at + 2, length, "ncclDevKernel_AllReduce_Sum_bf16_RING_LL")
            ]
        return made

    meeting = [Kernel(1, 5, 40, "ncclDevKernel_AllReduce_Sum_f32_RING_LL")]
    kernels = [*replay(4, 30, 40), *meeting, *replay(2, 10, 20)]
    assert by_call(kernels, 2) == [10.0, 20.0, 30.0, 40.0]
    assert by_call(kernels, 1) == [30.0, 70.0]  # two kernels a call
    lost = [kernel for kernel in kernels if kernel.duration_ns != 20]
    assert by_call(lost, 2) == []
