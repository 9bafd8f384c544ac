"""CUDA graphs: clean replays hide what they hold; stamped ones, and receives between them, tell it.

Two stages take turns: each replays its graph for 2 ms while the other waits for its message, which
then takes 10 us. Every fourth step's replays are stamped.
"""

from __future__ import annotations

import pytest

from harness_analysis.build.database import build_database
from harness_analysis.compare import compare_sides
from harness_analysis.compare.effects import Side
from harness_analysis.compare.load import load_run
from harness_analysis.store import open_database
from tests.truth.simulate_devices import make_batch

US = 1_000
REPLAY, MESSAGE, STEPS, EVERY = 2_000 * US, 10 * US, 25, 4
STEP = 2 * (REPLAY + MESSAGE)
EPOCH = 1_800_000_000_000_000_000


def rows_of(ranks, late_ns=0):
    """Spans and receives of `ranks` stages; of one there is nothing to receive."""
    spans, calls = [], []
    for step in range(1, STEPS + 1):
        stamped = step % EVERY == 0
        begin = EPOCH + step * ranks * (REPLAY + MESSAGE + late_ns)
        for rank in range(ranks):
            unit = {"rank": rank, "timeline": "device", "phase": "decode", "step": step,
                    "batch": 0, "microbatch": 0, "repeat": 0, "span_id": len(spans) + len(calls),
                    "perturbed_by": "graph_events" if stamped else None}  # fmt: skip
            if ranks == 2:
                sent = begin + rank * (REPLAY + late_ns + MESSAGE)
                posted = sent - REPLAY - late_ns - MESSAGE
                calls.append(unit | {
                    "source": "app_timers", "op": "recv", "src_rank": 1 - rank, "dst_rank": rank,
                    "bytes": 6400, "seq": step, "start_ns": posted, "return_ns": posted - 50 * US,
                    "end_ns": sent, "duration_ns": sent - posted})  # fmt: skip
            else:
                sent = posted = begin
            end = sent + REPLAY + late_ns
            source = "graph_events" if stamped else "app_timers"
            spans.append(unit | {"source": source, "name": "graph", "category": "graph",
                                 "start_ns": sent, "end_ns": end})  # fmt: skip
            spans.append(unit | {"source": "app_timers", "name": "decode", "category": "unit",
                                 "start_ns": posted, "end_ns": end})  # fmt: skip
    return spans, calls


def build(path, ranks, name="r", late_ns=0, more=()):
    clocks = [
        {"source": source, "rank": rank, "clock_domain": "one", "raw_ns": EPOCH, "wall_ns": EPOCH}
        for source in ("app_timers", "graph_events")
        for rank in range(ranks)
    ]
    spans, calls = rows_of(ranks, late_ns)
    batches = [make_batch("clock_anchors", clocks), make_batch("spans", spans)]
    batches += [make_batch("collectives", calls)] if calls else []
    facts = {"name": name, "device": "cuda", "world_size": ranks, "pp": ranks, "tp": 1}
    build_database(path, name, facts, [*batches, *more])
    return path


def ask(path, sql):
    with open_database(path) as con:
        return con.execute(sql).fetchall()


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    return build(tmp_path_factory.mktemp("replays") / "run.duckdb", 2)


def test_a_receive_waits_until_the_senders_replay_has_ended(stages):
    found = ask(
        stages,
        """SELECT DISTINCT wait_ns, transfer_ns, wait_method, unsplit_reason,
          wait_error_ns - transfer_ns BETWEEN 100_000 AND 110_000
        FROM collectives WHERE op = 'recv' AND (rank = 1 OR step > 1)""",
    )
    assert found == [(REPLAY, MESSAGE, "start_anchored", None, True)]


def test_with_a_floor_its_launch_is_waiting_too(tmp_path):
    """Of the 10 us after the sender's replay the message took 6 and a launch 4. The first has
    nothing before it: a link may have slept, which takes up to 200 us more."""
    floor = {"op": "send_recv", "bytes": 6400, "group_size": 2, "implementation": "nccl",
             "source": "floors", "p10_ns": 5_900, "p50_ns": 6_000, "p90_ns": 6_100,
             "stamps_ns": 8_000}  # fmt: skip
    path = build(tmp_path / "run.duckdb", 2, more=[make_batch("floors", [floor])])
    found = ask(
        path,
        """SELECT DISTINCT wait_ns, transfer_ns, wait_method,
          wait_error_ns - if(step = 1, 200_000, 0) BETWEEN 104_000 AND 115_000
        FROM collectives WHERE op = 'recv' AND (rank = 1 OR step > 1)""",
    )
    assert found == [(REPLAY + 4 * US, 6 * US, "floor", True)]


def test_a_receive_that_no_replay_explains_stays_bounded(stages):
    found = ask(stages, "SELECT wait_method, wait_ns FROM collectives WHERE rank = 0 AND step = 1")
    assert found == [("bounded", None)]


def test_a_clean_replay_is_unknown_not_free_of_communication(stages):
    """The receive's parts are known; what the replay beside it holds is not."""
    found = ask(
        stages,
        """SELECT DISTINCT compute_ns, memcpy_ns, comm_wait_ns, unresolved_ns
        FROM step_breakdown WHERE perturbed_by IS NULL AND rank = 1 AND step < 25""",
    )
    assert found == [(None, None, REPLAY, REPLAY + MESSAGE)]


def test_sampled_steps_tell_the_parts_of_the_others(stages):
    rows = ask(
        stages,
        """SELECT rank, basis, sampled_units, window_ns, compute_ns / window_ns,
          comm_wait_ns / window_ns, comm_transfer_ns / window_ns FROM rank_estimate""",
    )
    assert {row[:3] for row in rows} == {(0, "sampled", STEPS // EVERY), (1, "sampled", 6)}
    for *_, window, compute, wait, transfer in rows:
        assert window == pytest.approx((STEPS - STEPS // EVERY) * STEP, rel=1e-3)
        assert compute == pytest.approx(REPLAY / STEP) and wait == pytest.approx(REPLAY / STEP)
        assert transfer == pytest.approx(MESSAGE / STEP, rel=1e-4)


def test_a_comparison_finds_what_moved_inside_the_replays(stages, tmp_path):
    late = build(tmp_path / "late.duckdb", 2, "late", late_ns=500 * US)
    sides = [Side(path.stem, (load_run(path),)) for path in (stages, late)]
    moved = {e.metric: e.b - e.a for e in compare_sides(*sides).effects if e.part and not e.rank}
    assert moved["decode.compute"] == pytest.approx(500 * US, rel=1e-3)
    assert moved["decode.wait"] == pytest.approx(500 * US, rel=1e-3)


def test_a_rank_without_peers_computes_in_its_replays(tmp_path):
    path = build(tmp_path / "run.duckdb", 1)
    found = ask(path, "SELECT DISTINCT compute_ns, comm_wait_ns, comm_transfer_ns "
                      "FROM step_breakdown WHERE perturbed_by IS NULL AND step < 25")  # fmt: skip
    assert found == [(REPLAY, 0, 0)]
    assert ask(path, "SELECT DISTINCT basis FROM rank_estimate") == [("measured",)]
