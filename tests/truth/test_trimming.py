"""A recording that began later is no wait: equal calls are compared, the rest is left out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from truth.simulate_devices import DeviceRun, Devices

from harness_analysis.build.database import build_database
from harness_analysis.build.recordings import Recorded, shift_between
from harness_analysis.store import open_database

MISSED = 5
"""Decode steps (and the prefill) that were over when rank 1's recording began."""


def query(database, sql):
    with open_database(database) as con:
        return con.execute(sql).fetchall()


def begin_late(run: DeviceRun, rank: int, marks: bool) -> None:
    """Drop what the rank did before step MISSED, and count its calls from there."""
    for device in run.devices:
        if device.rank == rank:
            device.spans = [row for row in device.spans if row["step"] >= MISSED]
            device.collectives = [row for row in device.collectives if row["step"] >= MISSED]
            first = {}
            for row in device.collectives:
                first.setdefault(row["comm_group"], row["seq"])
            for row in device.collectives:
                row["seq"] -= first[row["comm_group"]]
        if not marks:
            for row in (*device.spans, *device.collectives):
                row |= dict.fromkeys(("phase", "step", "batch", "microbatch", "repeat"))


def numbers(database, where: str):
    return query(
        database,
        f"""
        SELECT rank, comm_group, step, round(sum(wait_ns)), count(*) FROM collectives
        WHERE op = 'all_reduce' AND {where} GROUP BY ALL ORDER BY ALL
        """,
    )


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """The whole recording, and the one in which rank 1 comes late."""
    folder = tmp_path_factory.mktemp("late")
    scenario = Devices(tp=2, pp=1, steps=12, late_rank=0, late_by="gap", late_ns=80_000)
    whole = DeviceRun(scenario).run().build(folder / "whole.duckdb")
    run = DeviceRun(scenario).run()
    begin_late(run, rank=1, marks=True)
    return whole, run.build(folder / "late.duckdb")


def test_common_units_keep_their_waits_and_others_have_none(scene):
    whole, late = scene
    assert numbers(late, f"step >= {MISSED}") == numbers(whole, f"step >= {MISSED}")
    before = query(
        late,
        f"""
        SELECT DISTINCT wait_ns, unsplit_reason FROM collectives
        WHERE op = 'all_reduce' AND step < {MISSED}
        """,
    )
    assert before == [(None, "seen on 1 of 2 ranks")]


def test_a_culprit_that_is_lost_with_the_units_is_not_lost_silently(scene):
    whole, late = scene
    asked = "SELECT text FROM findings WHERE kind IN ('straggler', 'trimmed')"
    ((named,),) = query(whole, asked)
    assert named.startswith("rank 0 makes group [0,1]#0 wait")
    ((left,),) = query(late, asked)
    assert "a late rank is not named: 8 units are left, and it takes 10" in left


def test_headline_numbers_rest_on_the_units_of_all_ranks_and_say_so(scene):
    _, late = scene
    assert query(
        late, "SELECT rank, units, left_out FROM rank_breakdown WHERE phase = 'decode' ORDER BY 1"
    ) == [(0, 13 - MISSED, MISSED - 1), (1, 13 - MISSED, 0)]
    ((trimmed,),) = query(late, "SELECT trimmed FROM coverage WHERE phase = 'decode'")
    assert trimmed == MISSED - 1
    ((text,),) = query(
        late, "SELECT text FROM findings WHERE kind = 'trimmed' AND phase = 'decode'"
    )
    assert (
        f"{MISSED - 1} of {12 + 13 - MISSED} of decode are left out (4 of rank 0); rank 1" in text
    )


def test_without_step_marks_the_ends_tell_which_call_is_which(tmp_path):
    scenario = Devices(tp=2, pp=1, steps=12, late_rank=0, late_by="gap", late_ns=80_000)
    whole = DeviceRun(scenario).run().build(tmp_path / "whole.duckdb")
    run = DeviceRun(scenario).run()
    begin_late(run, rank=1, marks=False)
    late = run.build(tmp_path / "late.duckdb")
    waits = "SELECT rank, sum(wait_ns), count(wait_ns) FROM collectives GROUP BY 1 ORDER BY 1"
    assert query(late, waits) == query(
        whole, waits.replace("GROUP", f"WHERE step >= {MISSED} GROUP")
    )


def test_ends_that_fit_nowhere_leave_waits_unknown(tmp_path):
    """Two recordings with nothing in common, 25 s apart, of equal calls."""
    run = DeviceRun(Devices(tp=2, pp=1, steps=6)).run()
    other = DeviceRun(Devices(tp=2, pp=1, steps=6, seed=9, late_rank=0, late_ns=3_000_000)).run()
    run.devices[1] = other.devices[1]
    build_database(tmp_path / "d.duckdb", "two", {"tp": 2}, run.batches())
    rows = query(tmp_path / "d.duckdb", "SELECT DISTINCT wait_ns FROM collectives")
    assert rows == [(None,)]


def columns(ends):
    """Calls of one kind, without marks of units."""
    return np.zeros_like(ends), ends, np.zeros_like(ends)


@given(
    gaps=st.lists(st.integers(50_000, 5_000_000), min_size=30, max_size=60, unique=True),
    begin=st.integers(0, 20),
    count=st.integers(8, 40),
    offset=st.integers(-(10**12), 10**12),
)
@settings(max_examples=100, deadline=None)
def test_the_shift_is_found_whatever_the_clocks(gaps, begin, count, offset):
    ends = np.cumsum(np.array(gaps, np.int64))
    reference = Recorded(0, np.arange(len(ends)), *columns(ends))
    mine = ends[begin : begin + count] + offset
    one = Recorded(1, np.arange(len(mine)), *columns(mine))
    found = shift_between(reference, one)
    # Where intervals of other calls agree within what ends agree by, it may stay unknown.
    assert found in (begin, None) or len(mine) <= 5


@given(
    gaps=st.lists(st.integers(1, 99), min_size=18, max_size=18, unique=True),
    begin=st.integers(1, 8),
)
@settings(max_examples=50, deadline=None)
def test_the_shift_is_found_where_each_has_calls_that_the_other_lacks(gaps, begin):
    ends = 1_790_857_026 * 10**9 + np.cumsum(np.array(gaps, np.int64) * 50_000)
    reference = Recorded(0, np.arange(18 - begin), *columns(ends[: 18 - begin]))
    one = Recorded(1, np.arange(18 - begin), *columns(ends[begin:]))
    assert shift_between(reference, one) in (begin, None)


def test_a_handful_of_common_calls_is_a_shift_where_it_is_half_of_them():
    ends = np.cumsum(np.array([90, 400, 70, 810, 330, 560, 120, 640, 480, 250, 910, 370]) * 1_000)
    reference = Recorded(0, np.arange(10), *columns(ends[:10]))
    one = Recorded(1, np.arange(10), *columns(ends[2:] + 7))
    assert shift_between(reference, one) == 2
