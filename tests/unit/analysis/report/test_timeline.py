"""The steps drawn in full, and who was late in which of them."""

from __future__ import annotations

from unit.analysis.report.pages import query

from harness_analysis.report.numbers.timeline import (
    load_timelines,
    merged,
)
from harness_analysis.store import open_database


def test_a_timeline_holds_the_calls_of_its_step(database):
    with open_database(database) as con:
        found = load_timelines(con)
    assert [step.title.partition(":")[0] for step in found.steps] == [
        "slowest",
        "median",
        "fastest",
    ]
    lengths = [step.length_ns for step in found.steps]
    assert lengths == sorted(lengths, reverse=True)
    for step in found.steps:
        number = int(step.title.rpartition("step ")[2].split()[0])
        for part, column in (("comm_wait_ns", "wait_ns"), ("comm_transfer_ns", "transfer_ns")):
            drawn = sum(end - start for _, start, end, _ in step.pieces[part])
            ((wanted,),) = query(
                database,
                f"SELECT sum({column})::BIGINT FROM collectives "
                f"WHERE phase = 'decode' AND step = {number}",
            )
            assert drawn == wanted
        assert {rank for rank, *_ in step.windows} == {0, 1, 2, 3}


def test_neighbours_become_one_and_cover_what_they_did():
    rows = [(0, 0, 10, "a"), (0, 12, 20, "a"), (0, 40, 50, "b"), (1, 51, 60, "b"), (1, 55, 57, "c")]
    assert list(merged(rows, 2)) == [
        (0, 0, 20, "a"),
        (0, 40, 50, "b"),
        (1, 51, 60, "2 intervals"),
    ]
    assert list(merged([], 2)) == []
