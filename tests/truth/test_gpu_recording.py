"""A small recording of the project's own: two H200s, one 50 us late in each of two layers.

openllama-3b of two layers, TP=2, decoding by CUDA graphs of which every second carries time
stamps; torch.profiler saw the kernels of four steps. The run is under tests/fixtures/runs.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.ingest import ingest_paths
from harness_analysis.store import open_database

RUN = Path(__file__).parents[1] / "fixtures/runs/h200_tp2_graph"
LATE_RANK, LAYERS, STEPS = 1, 2, 4
US = 1_000


@pytest.fixture(scope="module")
def con(tmp_path_factory):
    database = ingest_paths([RUN], tmp_path_factory.mktemp("gpu") / "run.duckdb")
    with open_database(database) as connection:
        yield connection


@pytest.fixture(scope="module")
def delayed(con):
    """Rank, its waits of the calls behind each of the delays: what the kernels say."""
    return con.execute(
        """
        WITH delays AS (
          SELECT step, end_ns, end_ns - start_ns AS delay FROM spans
          WHERE source = 'torch_profiler' AND name LIKE '%spin_kernel%' AND phase = 'decode'
        ), late AS (
          SELECT d.delay, c.comm_group, c.seq FROM delays d
          ASOF JOIN (FROM collectives_all WHERE source = 'torch_profiler' AND rank = ?) c
            ON c.start_ns >= d.end_ns
        )
        SELECT c.rank, l.delay, c.wait_ns, c.wait_method
        FROM late l JOIN collectives_all c USING (comm_group, seq)
        WHERE c.source = 'torch_profiler' ORDER BY c.rank, c.seq
        """,
        [LATE_RANK],
    ).fetchall()


def test_every_delay_comes_back_as_the_others_wait(delayed):
    waited = [(delay, wait) for rank, delay, wait, _ in delayed if rank != LATE_RANK]
    assert len(waited) == LAYERS * STEPS
    del waited[0]  # the other rank was 1.7 ms late there: its profiler had only just started
    off = [wait - delay for delay, wait in waited]
    assert abs(sum(off) / len(off)) <= 3 * US
    assert max(map(abs, off)) <= 5 * US


def test_the_late_rank_never_waits_where_it_was_late(delayed):
    its_own = [wait for rank, _, wait, _ in delayed if rank == LATE_RANK]
    assert its_own[0] > 1_000 * US and set(its_own[1:]) == {0}
    assert {method for *_, method in delayed} == {"end_anchored"}


def test_stamps_in_the_graph_agree_with_the_kernels(con):
    rows = con.execute(
        """
        SELECT abs(s.wait_ns - k.wait_ns), k.duration_ns BETWEEN s.low_ns AND s.duration_ns
        FROM collectives_all k JOIN collectives_all s USING (rank, comm_group, seq)
        WHERE k.source = 'torch_profiler' AND s.source = 'graph_events'
        """
    ).fetchall()
    assert len(rows) == 2 * 5 * STEPS // 2  # ranks, calls of a step, every second step
    assert max(off for off, _ in rows) <= 2 * US
    assert all(inside for _, inside in rows)


def test_the_windows_of_decoding_divide_without_rest(con):
    rows = con.execute(
        """
        SELECT compute_ns + comm_transfer_ns + comm_wait_ns + memcpy_ns + idle_ns, window_ns,
          comm_unsplit_ns + unresolved_ns
        FROM step_breakdown WHERE evidence = 'torch_profiler' AND phase = 'decode'
        """
    ).fetchall()
    assert len(rows) == 2 * STEPS
    assert all(divided >= 0.99 * window and rest <= 0.01 * window for divided, window, rest in rows)


def test_calls_of_graphs_without_stamps_are_known_but_not_timed(con):
    rows = con.execute(
        """
        SELECT DISTINCT start_ns, duration_ns, wait_ns, unsplit_reason FROM collectives_all
        WHERE source = 'app_timers' AND timeline = 'device' AND phase = 'decode'
        """
    ).fetchall()
    assert rows == [(None, None, None, "inside a CUDA graph that was not instrumented")]
