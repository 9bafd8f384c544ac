"""Generated evidence with known answers comes back exactly (design, section 3, truth test 1)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from truth.simulate import PARTS, Clock, Scenario, Simulation

from harness.ingest import ingest_run
from harness_analysis.store import open_database
from harness_schemas.rundir import RunDir


def ingest(simulation: Simulation, folder: Path) -> Path:
    s = simulation.s
    simulation.write(folder / "spans")
    spec = {"parallel": {"tp": s.tp, "pp": s.pp}, "generation": {"microbatches": 1}}
    (folder / "run.json").write_text(json.dumps({"name": "sim", "device": "cpu", "spec": spec}))
    return ingest_run(RunDir(folder))


def split_or_reasoned(con: Any) -> bool:
    """Whether every collective has either its wait or the reason why it has none."""
    undecided = con.execute(
        "SELECT count(*) FROM collectives WHERE (wait_ns IS NULL) = (unsplit_reason IS NULL)"
    ).fetchone()
    return undecided == (0,)


def breakdown(database: Path) -> dict[tuple[int, str, int | None], dict[str, int]]:
    columns = ", ".join(PARTS)
    with open_database(database) as con:
        assert split_or_reasoned(con)
        rows = con.execute(
            f"SELECT rank, phase, step, window_ns, {columns} FROM step_breakdown"
        ).fetchall()
    return {tuple(row[:3]): dict(zip(("window_ns", *PARTS), row[3:], strict=True)) for row in rows}


SCENARIOS = {
    "quiet": Scenario(),
    "late rank": Scenario(late_rank=1, late_ns=250_000),
    "preempted": Scenario(preempted_ns=30_000),
    "deep": Scenario(tp=1, pp=4),
    "wide": Scenario(tp=4, pp=1),
    "alone": Scenario(tp=1, pp=1),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_one_host_is_exact(name: str, tmp_path: Path) -> None:
    simulation = Simulation(SCENARIOS[name]).run()
    found = breakdown(ingest(simulation, tmp_path))
    assert set(found) == set(simulation.truth)
    for key, truth in simulation.truth.items():
        got = found[key]
        assert {part: got[part] for part in PARTS} == truth, key
        assert got["window_ns"] == sum(truth.values()), key


def test_two_hosts_with_offset_and_drift_are_right_within_the_residual(tmp_path: Path) -> None:
    clocks = (Clock(), Clock(offset_ns=50_000_000, drift_ppb=50_000, boot_id="boot-b"))
    scenario = Scenario(clocks=clocks, ranks_per_host=2, steps=4_000, late_rank=1, late_ns=400_000)
    simulation = Simulation(scenario).run()
    database = ingest(simulation, tmp_path)
    with open_database(database) as con:
        offsets = con.execute(
            "SELECT rank, method, residual_ns, drift_ppb FROM clock_offsets ORDER BY rank"
        ).fetchall()
    assert [row[1] for row in offsets] == ["reference", "same_host", "ping_pong", "ping_pong"]
    residual = offsets[2][2]
    # The quickest trips bound the error: half a round trip and what the jitter moves the line.
    assert 0 < residual < 30_000
    assert abs(offsets[2][3] + 50_000) < 2_000
    found = breakdown(database)
    for key, truth in simulation.truth.items():
        rank, phase, _ = key
        if phase != "decode":
            continue
        # Three communications of a unit can each be misplaced by the residual; a drifting
        # clock also stretches what its own rank measures.
        allowed = 3 * residual if rank < 2 else 3 * residual + 50_000 * 5
        for part in ("comm_transfer_ns", "comm_wait_ns"):
            assert abs(found[key][part] - truth[part]) <= allowed, (key, part)


@pytest.mark.parametrize("shape", [{"tp": 2, "pp": 1}, {"tp": 1, "pp": 2}])
def test_without_pingpongs_messages_tie_the_clocks_of_hosts(shape, tmp_path: Path) -> None:
    """Collectives across hosts, and messages both ways: all that is recorded lies where it was,
    within what is said."""
    clocks = (Clock(), Clock(offset_ns=-50_000_000, drift_ppb=8_000, boot_id="boot-b"))
    untied = Simulation(Scenario(clocks=clocks, ranks_per_host=1, steps=2_000, **shape))
    untied._pingpong = lambda: None  # type: ignore[method-assign]
    with open_database(ingest(untied.run(), tmp_path)) as con:
        clock = "SELECT offset_ns, residual_ns, method FROM clock_offsets WHERE rank = ?"
        reference, *_ = con.execute(clock, [0]).fetchone()
        _, residual, method = con.execute(clock, [1]).fetchone()
        rows = con.execute("SELECT start_ns, raw_start_ns FROM spans WHERE rank = 1").fetchall()
        calls, split, error = con.execute(
            "SELECT count(*), count(wait_ns), max(wait_error_ns) FROM collectives"
        ).fetchone()
    assert method == "messages" and residual < 3 * untied.s.transfer_ns

    def true(raw: int) -> int:
        return round((raw - clocks[1].read(0)) * 1e9 / (1e9 + clocks[1].drift_ppb))

    off = [start - (clocks[0].read(true(raw)) + reference) for start, raw in rows]
    assert max(map(abs, off)) <= residual
    assert calls == split and error == residual


def test_without_a_common_clock_communication_is_not_split(tmp_path: Path) -> None:
    """A clock that runs away by 5 % contradicts every straight line through the messages."""
    clocks = (Clock(), Clock(offset_ns=-50_000_000, drift_ppb=50_000_000, boot_id="boot-b"))
    simulation = Simulation(Scenario(clocks=clocks, ranks_per_host=1, tp=2, pp=1))
    simulation._pingpong = lambda: None  # type: ignore[method-assign]
    with open_database(ingest(simulation.run(), tmp_path)) as con:
        assert split_or_reasoned(con)
        split, reasons = con.execute(
            "SELECT count(wait_ns), list(DISTINCT unsplit_reason) FROM collectives"
        ).fetchone()
        waits, unsplits = con.execute(
            "SELECT sum(comm_wait_ns), sum(comm_unsplit_ns) FROM step_breakdown"
        ).fetchone()
    assert (split, reasons) == (0, ["no common clock"])
    assert waits == 0 and unsplits > 0


def test_clocks_that_messages_tie_one_way_only_stay_unknown(tmp_path: Path) -> None:
    clocks = (Clock(), Clock(offset_ns=-50_000_000, boot_id="boot-b"))
    simulation = Simulation(Scenario(clocks=clocks, ranks_per_host=1, tp=1, pp=2))
    simulation._pingpong = lambda: None  # type: ignore[method-assign]
    both_ways = simulation.message

    def forward_only(sender: Any, receiver: Any, size: int) -> None:
        if sender.rank == 0:
            both_ways(sender, receiver, size)

    simulation.message = forward_only  # type: ignore[method-assign]
    with open_database(ingest(simulation.run(), tmp_path)) as con:
        clock = con.execute("SELECT residual_ns, method FROM clock_offsets WHERE rank = 1")
        assert clock.fetchone() == (None, "wall_clock")
        assert split_or_reasoned(con)
        # Between the two, only durations are compared.
        assert con.execute("SELECT DISTINCT wait_method FROM collectives").fetchall() == [
            ("end_anchored",)
        ]


def test_the_late_rank_is_named_and_only_when_it_is_late(tmp_path: Path) -> None:
    for late, named in ((0, []), (250_000, [3])):
        folder = tmp_path / str(late)
        folder.mkdir()
        scenario = Scenario(steps=40, late_rank=3, late_ns=late)
        with open_database(ingest(Simulation(scenario).run(), folder)) as con:
            culprits = con.execute(
                "SELECT DISTINCT rank FROM findings WHERE kind = 'straggler' ORDER BY rank"
            ).fetchall()
            waits = con.execute(
                """
                SELECT median(w) FROM (
                  SELECT sum(wait_ns) AS w FROM collectives
                  WHERE rank = 2 AND op = 'all_reduce' AND phase = 'decode' GROUP BY step)
                """
            ).fetchone()
        assert [row[0] for row in culprits] == named
        if late:
            # Three layers a step, each 250 us late, plus at most 10 us of noise a layer.
            assert waits is not None and 3 * 240_000 <= waits[0] <= 3 * 260_000


def test_why_late_is_computing_longer(tmp_path: Path) -> None:
    scenario = Scenario(steps=20, late_rank=0, late_ns=300_000)
    with open_database(ingest(Simulation(scenario).run(), tmp_path)) as con:
        row = con.execute(
            """
            SELECT share_last, main_cause, late_compute_ns / late_ns FROM stragglers
            WHERE rank = 0 AND phase = 'decode'
            """
        ).fetchone()
    assert row is not None
    assert row[0] == 1.0 and row[1] == "it computes longer" and 0.99 < row[2] <= 1.0


def test_ingest_is_deterministic(tmp_path: Path) -> None:
    contents = []
    for name in ("a", "b"):
        folder = tmp_path / name / "same"
        folder.mkdir(parents=True)
        database = ingest(Simulation(Scenario(seed=3)).run(), folder)
        with open_database(database) as con:
            tables = [row[0] for row in con.execute("SHOW TABLES").fetchall()]
            contents.append(
                {t: sorted(map(str, con.execute(f"FROM {t}").fetchall())) for t in tables}
            )
    for table in contents[0]:
        if table not in ("collection",):
            assert contents[0][table] == contents[1][table], table


def test_windows_tile_and_steps_sum_to_their_phase(tmp_path: Path) -> None:
    with open_database(ingest(Simulation(Scenario()).run(), tmp_path)) as con:
        holes = con.execute(
            """
            SELECT count(*) FROM (
              SELECT start_ns - lag(start_ns + window_ns)
                OVER (PARTITION BY rank ORDER BY start_ns) AS gap
              FROM step_breakdown) WHERE gap <> 0
            """
        ).fetchone()
        unequal = con.execute(
            """
            SELECT count(*) FROM rank_breakdown r JOIN (
              SELECT rank, phase, sum(window_ns) AS w FROM step_breakdown GROUP BY ALL) s
            USING (rank, phase) WHERE r.window_ns <> s.w
            """
        ).fetchone()
        whole = con.execute(
            """
            SELECT count(*) FROM rank_breakdown a JOIN (
              SELECT rank, sum(window_ns) AS w FROM step_breakdown GROUP BY rank) s USING (rank)
            WHERE a.phase = 'all' AND a.window_ns <> s.w
            """
        ).fetchone()
    assert holes == unequal == whole == (0,)


@pytest.mark.parametrize("cut", [0, 1, 15, 16, 17, 16 + 96, 16 + 96 * 7 + 50])
def test_a_spool_cut_anywhere_is_used_as_far_as_it_goes(cut: int, tmp_path: Path) -> None:
    simulation = Simulation(Scenario()).run()
    database = ingest(simulation, tmp_path)
    database.unlink()
    path = tmp_path / "spans" / "rank-00001.spans"
    path.write_bytes(path.read_bytes()[:cut])
    with open_database(ingest_run(RunDir(tmp_path))) as con:
        assert split_or_reasoned(con)
        (spans,) = con.execute("SELECT count(*) FROM spans WHERE rank = 1 AND complete").fetchone()
        (state,) = con.execute(
            "SELECT state FROM collection WHERE collector = 'app_timers' AND rank = 1"
        ).fetchone()
    assert spans == max(0, cut - 16) // 96
    assert state == "degraded"  # also at a record's end: the rank said how many it wrote


@pytest.mark.parametrize("tied", [True, False])
def test_ranks_of_one_host_are_compared_by_its_clock_whatever_ties_it_to_others(
    tied: bool, tmp_path: Path
) -> None:
    """TP within a host: exact, also where nothing, or only a coarse ping-pong, ties the hosts."""
    clocks = (Clock(), Clock(offset_ns=-50_000_000, boot_id="boot-b"))
    scenario = Scenario(clocks=clocks, ranks_per_host=2, late_rank=3, late_ns=250_000)
    simulation = Simulation(scenario)
    if not tied:
        simulation._pingpong = lambda: None  # type: ignore[method-assign]
        both_ways = simulation.message

        def forward_only(sender: Any, receiver: Any, size: int) -> None:
            if sender.rank < receiver.rank:
                both_ways(sender, receiver, size)

        simulation.message = forward_only  # type: ignore[method-assign]
    with open_database(ingest(simulation.run(), tmp_path)) as con:
        (method,) = con.execute("SELECT method FROM clock_offsets WHERE rank = 3").fetchone()
        calls = con.execute(
            "SELECT wait_method, wait_error_ns, last_arriver, count(*) FROM collective_waits "
            "WHERE comm_group = '[2,3]#0' AND phase = 'decode' AND op = 'all_reduce' GROUP BY ALL"
        ).fetchall()
    assert method == ("ping_pong" if tied else "wall_clock")
    assert [row[:3] for row in calls] == [("start_anchored", 100, 3)]
