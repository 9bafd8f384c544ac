"""Kernels that end together tie clocks that nothing else ties, and say how finely."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest
from truth.simulate_devices import EPOCH_NS, DeviceRun, Devices, make_batch

from harness_analysis.build.database import build_database
from harness_analysis.store import open_database

APART = Devices(shared_clock=False, steps=6)
ERROR_NS = 3_000_000
"""How far the wall clocks of odd ranks are off in the simulation."""

WALL_ANCHORS = [
    {
        **{"source": "torch_profiler", "rank": rank, "clock_domain": f"w{rank}"},
        **{"raw_ns": EPOCH_NS, "wall_ns": EPOCH_NS},
    }
    for rank in (0, 1)
]
"""Two ranks, each with a wall clock of its own."""


def query(database, sql, parameters=()):
    with open_database(database) as con:
        return con.execute(sql, parameters).fetchall()


def test_offsets_between_wall_clocks_are_found_and_taken_out(tmp_path):
    run = DeviceRun(APART).run()
    database = run.build(tmp_path / "d.duckdb")
    clocks = query(database, "SELECT rank, residual_ns, method FROM clock_offsets ORDER BY rank")
    assert clocks[0] == (0, 100, "reference")
    # Rank 2's clock was right: it is checked, and left.
    methods = ["collective_ends", "wall_clock+collective_ends", "collective_ends"]
    assert clocks[1:] == [(rank, 0, method) for rank, method in enumerate(methods, 1)]
    ends = query(
        database,
        """
        SELECT DISTINCT max(end_ns) - min(end_ns) FROM collectives
        GROUP BY comm_group, seq, src_rank, dst_rank
        """,
    )
    assert ends == [(0,)]
    spans = query(database, "SELECT rank, min(start_ns), min(raw_start_ns) FROM spans GROUP BY 1")
    first = {device.rank: min(row["start_ns"] for row in device.spans) for device in run.devices}
    assert {rank: start - EPOCH_NS for rank, start, _ in spans} == first


def test_ranks_that_nothing_ties_stay_apart(tmp_path):
    """Two data-parallel replicas: no collective and no message between them."""
    run = DeviceRun(replace(APART, pp=1)).run()
    other = DeviceRun(replace(APART, pp=1, seed=4)).run()
    for device in other.devices:
        device.rank += 2
        for row in device.collectives:
            row["comm_group"] = "[2,3]#0"
    run.devices += other.devices
    build_database(tmp_path / "d.duckdb", "r", {"tp": 2}, run.batches())
    rows = query(
        tmp_path / "d.duckdb", "SELECT residual_ns, method FROM clock_offsets ORDER BY rank"
    )
    assert [row[0] for row in rows] == [100, 0, None, None]


@pytest.mark.parametrize("noise_ns", [2_000, 400_000])
def test_a_difference_that_is_not_clear_is_reported_and_not_taken_out(tmp_path, noise_ns):
    calls = [
        {
            **{"rank": rank, "source": "torch_profiler", "timeline": "device", "seq": seq},
            **{"op": "all_reduce", "comm_group": "[0,1]#0", "group_size": 2, "bytes": 64},
            "start_ns": EPOCH_NS + seq * 10**6,
            "end_ns": EPOCH_NS + seq * 10**6 + 50_000 + rank * (6_000 + seq % 2 * noise_ns),
        }
        for rank in (0, 1)
        for seq in range(20)
    ]
    batches = [make_batch("clock_anchors", WALL_ANCHORS), make_batch("collectives", calls)]
    build_database(tmp_path / "d.duckdb", "r", {"tp": 2}, batches)
    ((offset, residual, method),) = query(
        tmp_path / "d.duckdb",
        "SELECT offset_ns, residual_ns, method FROM clock_offsets WHERE rank = 1",
    )
    assert offset == 0 and method == "wall_clock+collective_ends"
    assert residual == 6_000 + noise_ns


def test_a_drift_between_wall_clocks_is_found_and_taken_out(tmp_path):
    """20 ppm over 40 s, and an offset of 1 ms: without the line the ends lie 400 us apart."""
    draw = random.Random(5)
    moments = list(itertools.accumulate(draw.randint(10**7, 9 * 10**7) for _ in range(800)))
    calls = [
        {
            **{"rank": rank, "source": "torch_profiler", "timeline": "device", "seq": seq},
            **{"op": "all_reduce", "comm_group": "[0,1]#0", "group_size": 2, "bytes": 64},
            "start_ns": EPOCH_NS + at - 50_000 + rank * (10**6 + at // 50_000),
            "end_ns": EPOCH_NS + at + rank * (10**6 + at // 50_000 + draw.randint(-300, 300)),
        }
        for rank in (0, 1)
        for seq, at in enumerate(moments)
    ]
    batches = [make_batch("clock_anchors", WALL_ANCHORS), make_batch("collectives", calls)]
    build_database(tmp_path / "d.duckdb", "r", {"tp": 2}, batches)
    ((drift, residual, method),) = query(
        tmp_path / "d.duckdb",
        "SELECT drift_ppb, residual_ns, method FROM clock_offsets WHERE rank = 1",
    )
    assert drift == pytest.approx(-20_000, rel=1e-3) and method == "collective_ends"
    assert residual <= 400
    ((apart,),) = query(
        tmp_path / "d.duckdb",
        """
        SELECT max(apart) FROM (SELECT max(end_ns) - min(end_ns) AS apart FROM collectives
          GROUP BY seq)
        """,
    )
    assert apart <= 400
    # The row of the table maps raw times to where they are now.
    ((off,),) = query(
        tmp_path / "d.duckdb",
        """
        SELECT max(abs(c.end_ns - (r.raw + k.offset_ns
            + (r.raw - k.ref_ns)::HUGEINT * k.drift_ppb // 1000000000)))
        FROM collectives c JOIN clock_offsets k USING (rank)
        JOIN (SELECT unnest(?::STRUCT(seq BIGINT, raw BIGINT)[], recursive := true)) r USING (seq)
        WHERE c.rank = 1
        """,
        [[{"seq": row["seq"], "raw": row["end_ns"]} for row in calls if row["rank"] == 1]],
    )
    assert off <= 1


@pytest.mark.parametrize("disagree_ns", [0, 5 * 10**6])
def test_ranks_that_share_a_clock_are_moved_together(tmp_path, disagree_ns):
    """Two hosts of two ranks, three seconds apart; the last rank shares no call with the first.

    Where the ranks of a host do not agree on how far its clock is off, it is only checked.
    """
    off = (0, 0, 3 * 10**9, 3 * 10**9)
    groups = {"[0,1,2]#0": (0, 1, 2), "[1,3]#0": (1, 3)}
    calls = [
        {
            **{"rank": rank, "source": "torch_profiler", "timeline": "device", "seq": seq},
            **{"op": "all_reduce", "comm_group": group, "group_size": len(ranks), "bytes": 64},
            "start_ns": EPOCH_NS + seq * 10**7 + off[rank],
            "end_ns": EPOCH_NS + seq * 10**7 + 50_000 + off[rank] + disagree_ns * (rank == 3),
        }
        for group, ranks in groups.items()
        for rank in ranks
        for seq in range(20)
    ]
    anchors = [
        {
            **{"source": "torch_profiler", "rank": rank, "clock_domain": f"wall:{rank // 2}"},
            **{"raw_ns": EPOCH_NS, "wall_ns": EPOCH_NS, "host": f"node{rank // 2}"},
        }
        for rank in range(4)
    ]
    batches = [make_batch("clock_anchors", anchors), make_batch("collectives", calls)]
    build_database(tmp_path / "d.duckdb", "r", {"tp": 2}, batches)
    moved = query(tmp_path / "d.duckdb", "SELECT offset_ns FROM clock_offsets ORDER BY rank")
    expected = (0, 0, -3 * 10**9, -3 * 10**9) if not disagree_ns else (0, 0, 0, 0)
    assert [offset for (offset,) in moved] == list(expected)
    apart = "SELECT max(end_ns) - min(end_ns) FROM collectives WHERE comm_group = '[0,1,2]#0'"
    ((spread,),) = query(tmp_path / "d.duckdb", f"{apart} AND seq = 7")
    assert spread == (0 if not disagree_ns else 3 * 10**9)
