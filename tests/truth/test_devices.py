"""Kernels with a known breakdown, causes and step time come back exactly (design, section 3)."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path

import pytest
from truth.simulate_devices import EPOCH_NS, PARTS, SOURCE, DeviceRun, Devices, make_batch

from harness_analysis.build.database import build_database
from harness_analysis.store import open_database
from harness_schemas.units import format_ns

LATE = {
    "compute": Devices(late_rank=1, late_by="compute", late_ns=250_000),
    "copy": Devices(late_rank=2, late_by="copy", late_ns=90_000),
    "gap": Devices(late_rank=3, late_by="gap", late_ns=120_000),
    "p2p": Devices(late_rank=0, late_by="p2p", late_ns=300_000),
    "wide": Devices(tp=4, pp=1, late_rank=2, late_by="gap", late_ns=60_000),
    "deep": Devices(pp=3, late_rank=2, late_by="p2p", late_ns=200_000),
    "clocks apart": Devices(shared_clock=False, late_rank=2, late_by="gap", late_ns=150_000),
    "perturbed": Devices(perturbed=True, late_rank=1, late_by="copy", late_ns=150_000),
    "quiet": Devices(),
}
WORDS = {
    "compute": "it computes longer",
    "copy": "it copies memory",
    "gap": "its device waits for launches (bound by its host)",
    "p2p": "it passes on an earlier wait for rank ",
}


def query(database: Path, sql: str) -> list[tuple]:
    with open_database(database) as con:
        return con.execute(sql).fetchall()


@pytest.fixture(scope="module", params=LATE)
def built(request, tmp_path_factory):
    run = DeviceRun(LATE[request.param]).run()
    return run, run.build(tmp_path_factory.mktemp("devices") / "d.duckdb")


def who(run: DeviceRun) -> tuple[int, str]:
    """The rank that comes last to its group, and the group."""
    s = run.s
    rank = s.last_rank()
    first = rank // s.tp * s.tp
    return rank, f"[{','.join(map(str, range(first, first + s.tp)))}]#0"


@pytest.fixture
def late(built):
    """A scenario in which somebody is late: who, and in which group."""
    run, database = built
    if run.s.late_rank is None:
        pytest.skip("nobody is late in this scenario")
    return run, database, *who(run)


def test_every_unit_divides_as_generated(built):
    run, database = built
    rows = query(
        database,
        f"SELECT rank, phase, step, window_ns, {', '.join(PARTS)} FROM step_breakdown",
    )
    found = {tuple(row[:3]): row[3:] for row in rows}
    truth = {
        (device.rank, *unit): (sum(parts.values()), *(parts[part] for part in PARTS))
        for device in run.devices
        for unit, parts in device.parts.items()
    }
    assert found == truth


def test_the_cause_is_named_and_measured(late):
    run, database, rank, group = late
    (row,) = query(
        database,
        f"""
        SELECT late_compute_ns, late_copy_ns, late_gap_ns, late_inherited_ns, late_ns,
          late_io_ns, late_preempted_ns, main_cause, late_root_rank, perturbed
        FROM stragglers WHERE phase = 'decode' AND rank = {rank} AND comm_group = '{group}'
        """,
    )
    # Parts of the mean of three peers are no integers.
    assert row[:4] == pytest.approx(tuple(run.late(rank, group).values()), abs=0.5)
    assert row[4] == pytest.approx(sum(row[:4]), abs=2)
    assert row[5:7] == (None, None)
    passed_on = run.s.late_by == "p2p"
    assert row[7] == WORDS[run.s.late_by] + (str(run.s.late_rank) if passed_on else "")
    assert row[8] == (run.s.late_rank if passed_on else None)
    assert row[9] == run.s.perturbed


def test_the_prediction_is_the_step_without_the_lateness(late):
    run, database, rank, group = late
    (row,) = query(
        database,
        f"""
        SELECT steps, step_ms, predicted_step_ms, perturbed FROM what_if
        WHERE phase = 'decode' AND rank = {rank} AND comm_group = '{group}'
        """,
    )
    on_time = DeviceRun(replace(run.s, late_ns=0)).run()
    # Windows of the middle stages begin a step's part earlier than the savings counted in it.
    tolerance = 1e-9 if run.s.pp < 3 else 1e-3
    assert row[0] == run.s.steps and row[3] == run.s.perturbed
    assert row[1] == pytest.approx(statistics.median(run.step_ns()) / 1e6, abs=tolerance)
    assert row[2] == pytest.approx(statistics.median(on_time.step_ns()) / 1e6, abs=tolerance)


def test_the_top_finding_says_why_and_what_if(built):
    run, database = built
    found = query(database, "SELECT rank, text FROM findings WHERE kind = 'straggler'")
    if run.s.late_rank is None:
        assert found == []
        return
    rank, _ = who(run)
    assert {row[0] for row in found} == {rank}
    text = next(row[1] for row in found if " of decode" in row[1])
    assert WORDS[run.s.late_by] in text
    assert "without it a decode step would take about" in text
    assert ("units slowed by observing" in text) == run.s.perturbed


@pytest.mark.parametrize("late_by", ["compute", "copy", "gap"])
@pytest.mark.parametrize("stage", [0, 1])
def test_a_slow_stage_is_named_with_its_cause_and_the_step_without_it(late_by, stage, tmp_path):
    slow = Devices(tp=1, pp=2, late_rank=stage, late_by=late_by, late_ns=250_000)
    run = DeviceRun(slow).run()
    on_time = DeviceRun(replace(slow, late_ns=0)).run()
    database = run.build(tmp_path / "slow.duckdb")
    ((rank, share, text),) = query(
        database, "SELECT rank, share, text FROM findings WHERE kind = 'stage'"
    )
    assert rank == stage and text.startswith(f"stage {stage} (rank {stage}) is busy")
    assert WORDS[late_by] in text
    now, without = statistics.median(run.step_ns()), statistics.median(on_time.step_ns())
    assert share == pytest.approx(1 - without / now, rel=0.1)
    assert f"instead of {format_ns(now)}" in text


def test_no_stage_is_named_where_none_is_slow_or_one_of_its_ranks_is_late(built):
    _, database = built
    assert query(database, "FROM findings WHERE kind = 'stage'") == []


def test_every_row_is_split_or_says_why_not(built):
    _, database = built
    rows = query(
        database,
        """
        SELECT count(*), count(*) FILTER (wait_ns IS NULL AND unsplit_reason IS NULL),
          count(*) FILTER (wait_ns IS NOT NULL AND unsplit_reason IS NOT NULL)
        FROM collectives
        """,
    )
    assert rows[0][0] > 100 and rows[0][1:] == (0, 0)


def test_a_chain_of_waits_is_followed_to_its_root(tmp_path):
    """0 sends late to 1; 2 waits for 1 in [1,2]; 3 waits for 2 in [2,3]: it began with 0."""
    run = DeviceRun(Devices(tp=4, pp=1, offsets_ns=(0, -50_000_000, 50_000_000, 1)))
    d = run.devices

    def step(number: int) -> None:
        for device in d:
            device.open("decode" if number else "prefill", number)
            device.compute(30_000 + 1_000 * device.rank)
        d[0].compute(400_000)
        run.message(d[0], d[1])
        run.all_reduce(d[1:3])
        run.all_reduce(d[2:4])
        last = max(device.now for device in d)
        for device in d:
            device.idle(last - device.now)

    for number in range(15):
        step(number)
    database = run.build(tmp_path / "d.duckdb")
    rows = query(
        database,
        """
        SELECT comm_group, rank, late_root_rank FROM stragglers
        WHERE phase = 'decode' AND times_last > 0 ORDER BY rank
        """,
    )
    assert rows == [("[1,2]#0", 1, 0), ("[2,3]#0", 2, 0)]


def test_no_gap_is_measured_over_what_was_not_recorded(tmp_path):
    """Between two windows of a profiler nothing is known: no launch gap is made of it."""
    run = DeviceRun(replace(LATE["compute"], pp=1)).run()
    whole = run.build(tmp_path / "whole.duckdb")
    marks = []
    for device in run.devices:
        opened = EPOCH_NS + run.s.offsets_ns[device.rank] + device.opened["decode", 7] + 1
        mark = {"rank": device.rank, "source": SOURCE, "timeline": "host"}
        mark |= {"name": "torch_profiler.window", "start_ns": opened, "end_ns": opened + 9}
        marks.append(mark)
    batches = [*run.batches(), make_batch("spans", marks)]
    build_database(tmp_path / "d.duckdb", "r", {"tp": 2}, batches)
    sql = "SELECT late_compute_ns FROM stragglers WHERE rank = 1 AND phase = 'decode'"
    ((less,),), ((all_of_it,),) = query(tmp_path / "d.duckdb", sql), query(whole, sql)
    gap = run.gaps["[0,1]#0", 7 * run.s.layers]
    assert all_of_it - less == gap[1]["compute"] - gap[0]["compute"]


@pytest.mark.parametrize("lacking", ["src_rank", "op", "comm_group", "seq", "group_size", "end_ns"])
def test_a_call_that_cannot_be_split_stays_and_says_why(lacking, tmp_path):
    """A broadcast on two hosts' ranks with a common clock, one fact of it unknown."""
    anchors = [
        {"rank": rank, "source": "app_timers", "clock_domain": "host", "raw_ns": 0, "wall_ns": 0}
        for rank in (0, 1)
    ]
    call = {"source": "app_timers", "timeline": "host", "op": "broadcast", "src_rank": 0}
    call |= {"comm_group": "[0,1]#0", "seq": 0, "group_size": 2, "bytes": 8, "phase": "decode"}
    rows = [
        {**call, "rank": rank, "start_ns": 100 + 50 * rank, "end_ns": 200, lacking: None}
        for rank in (0, 1)
    ]
    batches = [make_batch("clock_anchors", anchors), make_batch("collectives", rows)]
    build_database(tmp_path / "d.duckdb", "r", {"tp": 2}, batches)
    found = query(tmp_path / "d.duckdb", "SELECT wait_ns, unsplit_reason FROM collectives")
    assert len(found) == 2
    assert all(wait is None and reason for wait, reason in found)
    rows = [{**row, lacking: call.get(lacking, 200)} for row in rows]
    build_database(
        tmp_path / "whole.duckdb", "r", {"tp": 2}, [batches[0], make_batch("collectives", rows)]
    )
    whole = query(tmp_path / "whole.duckdb", "SELECT wait_ns FROM collectives ORDER BY rank")
    assert whole == [(50,), (0,)]


def test_in_graph_events_tell_computing_and_leave_the_rest_unknown(tmp_path):
    """Two replays of one graph, 100 us apart, two collectives in each; rank 1 computes longer."""
    spans, calls = [], []
    for rank, work in ((0, 50_000), (1, 80_000)):
        for replay in range(12):
            keys = {"rank": rank, "source": "graph_events", "timeline": "device", "step": replay}
            keys |= {"phase": "decode", "perturbed_by": "graph_events"}
            begin = replay * 300_000
            ends = [begin + 90_000, begin + 190_000]
            spans.append(keys | {"category": "graph", "start_ns": begin, "end_ns": ends[1]})
            for k, end in enumerate(ends):
                start = begin + k * 90_000 + work
                call = {"op": "all_reduce", "comm_group": "[0,1]#0", "seq": 2 * replay + k}
                call |= {"group_size": 2, "bytes": 8, "duration_ns": end - start}
                calls.append(keys | call | {"start_ns": start, "end_ns": end})
    batches = [make_batch("spans", spans), make_batch("collectives", calls)]
    build_database(tmp_path / "d.duckdb", "r", {"tp": 2}, batches)
    rows = query(
        tmp_path / "d.duckdb",
        """
        SELECT rank, times_last, late_ns, late_compute_ns, late_copy_ns, late_gap_ns,
          late_inherited_ns, main_cause, perturbed
        FROM stragglers WHERE times_last > 0
        """,
    )
    late = 23 * 30_000
    cause = "it computes longer"
    assert rows == [(1, 24, late, late, None, None, None, cause, True)]


def test_copies_alone_do_not_say_that_nothing_was_computed(tmp_path):
    """As of a report taken without kernels: what ran between the copies is not known."""
    at = {"rank": 0, "source": "nsys", "timeline": "device", "category": "memcpy"}
    copies = [
        at | {"name": "HtoD", "start_ns": EPOCH_NS, "end_ns": EPOCH_NS + 1_000},
        at | {"name": "DtoH", "start_ns": EPOCH_NS + 9_000, "end_ns": EPOCH_NS + 10_000},
    ]
    kernel = {"name": "gemm", "category": "compute", "end_ns": EPOCH_NS + 5_000}
    found = []
    for name, spans in (("copies", copies), ("whole", [*copies, copies[0] | kernel])):
        build_database(tmp_path / name, "run", {"tp": 1}, [make_batch("spans", spans)])
        sql = "SELECT window_ns, compute_ns, memcpy_ns, idle_ns, unresolved_ns FROM unit_breakdown"
        with open_database(tmp_path / name) as con:
            found += con.execute(sql).fetchall()
    assert found == [(10_000, None, 2_000, None, 8_000), (10_000, 5_000, 1_000, 4_000, 0)]
