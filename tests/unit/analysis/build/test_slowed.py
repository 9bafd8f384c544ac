"""Requests with steps in a profiler's window do not count beside clean ones."""

from __future__ import annotations

import duckdb
import pytest

from harness_analysis.build.slowed import mark_slowed, still_counted


@pytest.fixture
def con():
    con = duckdb.connect()
    con.execute(
        """
        CREATE TABLE requests (request_id VARCHAR, batch INT, repeat INT, warmup BOOL,
          perturbed_by VARCHAR);
        CREATE TABLE step_tokens (request_id VARCHAR, batch INT, repeat INT, warmup BOOL,
          perturbed_by VARCHAR, step INT, n_tokens INT, host_ns BIGINT, device_ns BIGINT)
        """
    )
    return con


def add(con, repeat, slow_steps=(), by="torch_profiler", slow_ns=90):
    """A request of 20 steps of 10 ns, of which some take longer."""
    con.execute("INSERT INTO requests VALUES ('q', 0, ?, false, NULL)", [repeat])
    at = 0
    for step in range(21):
        slow = step in slow_steps
        at += slow_ns if slow else 10
        row = ["q", 0, repeat, False, by if slow else None, step, 1, at, None]
        con.execute(f"INSERT INTO step_tokens VALUES ({', '.join('?' * 9)})", row)


def marked(con):
    return con.execute("SELECT repeat, perturbed_by FROM requests ORDER BY 1").fetchall()


def test_beside_a_clean_request_a_slowed_one_does_not_count(con):
    add(con, 0, slow_steps=(3, 4, 5))
    add(con, 1)
    mark_slowed(con)
    assert marked(con) == [(0, "torch_profiler"), (1, None)]
    assert still_counted(con) is None


def test_where_all_were_slowed_they_count_and_how_much_that_is_is_known(con):
    add(con, 0, slow_steps=(3, 4, 5))
    mark_slowed(con)
    assert marked(con) == [(0, None)]
    slowed = still_counted(con)
    assert (slowed.requests, slowed.by) == (1, "torch_profiler")
    assert slowed.share == pytest.approx(3 * 80 / (17 * 10 + 3 * 90))


def test_events_in_single_replays_slow_nothing_worth_telling(con):
    add(con, 0, slow_steps=(10,), by="graph_events", slow_ns=11)
    add(con, 1)
    mark_slowed(con)
    assert marked(con) == [(0, None), (1, None)] and still_counted(con) is None
