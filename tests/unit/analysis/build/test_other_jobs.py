"""NCCL's logs of processes that were not recorded, beside those of the ones that were."""

from __future__ import annotations

import duckdb
import pytest

from harness_analysis.build.other_jobs import _logs_beside

RECORDED = [(0, 10), (1, 11)]


@pytest.mark.parametrize(
    ("logged", "world", "named"),
    [
        ([(0, 10), (1, 11)], 2, None),
        ([(0, 10), (1, 11), (0, 70)], 2, "70"),
        ([(0, 10), (1, 11), (0, 70)], None, "70"),
        ([(None, 10), (None, 11), (None, 70), (None, 71)], 2, "70, 71"),
        # The processes of ranks 2 and 3 are not known: these may be theirs.
        ([(None, 10), (None, 11), (None, 70), (None, 71)], 4, None),
        # None of the logs is of a recorded process: their numbers may be a container's.
        ([(None, 70), (None, 71)], 2, None),
        ([(2, 70)], 4, None),
    ],
)
def test_logs_of_other_processes_are_named(logged, world, named):
    con = duckdb.connect()
    con.execute("ATTACH ':memory:' AS run")
    con.execute("CREATE TABLE run.ranks (rank INTEGER, pid INTEGER)")
    con.execute("CREATE TABLE run.nccl_comms (rank INTEGER, pid INTEGER)")
    con.execute("CREATE TABLE run.runs (world_size INTEGER)")
    con.executemany("INSERT INTO run.ranks VALUES (?, ?)", RECORDED)
    con.executemany("INSERT INTO run.nccl_comms VALUES (?, ?)", logged)
    con.execute("INSERT INTO run.runs VALUES (?)", [world])
    found = _logs_beside(con)
    assert bool(found) == (named is not None)
    if named:
        assert f"is of other processes too ({named})" in found[0].text
