"""When nobody makes progress, and when it only looks so."""

from __future__ import annotations

import io
import json

import pytest
from rank_pages import write_run

from harness.progress import Narrator
from harness.status import hang_watch
from harness.status.hang_report import read_report
from harness.status.hang_watch import SET_UP_LIMITS, Look, Stillness, Vitals, look_at, watch
from harness_schemas import hang_files
from harness_schemas.rundir import RunDir

LIMIT = 8.0
"""Looks come every second."""
MIB = 1 << 20


def looks(marks, vitals=None, in_call=()):
    return Look(marks, frozenset(in_call), vitals or {})


def quiet_after(sequence, sets_up=False):
    """Seconds of quiet after looks that come one a second."""
    still, quiet = Stillness(LIMIT, lambda rank: sets_up), None
    for second, look in enumerate(sequence):
        quiet = still.quiet_s(look, 100.0 + second)
    return quiet


def used(second, cpu=0.0, io=0, rss=100 * MIB):
    return Vitals(round(second * 1e9), round(cpu * 1e9), io, rss)


STILL = {0: (5, 9, 2), 1: (5, 8, 2)}


def test_nothing_is_said_before_anybody_has_begun():
    assert quiet_after([looks({})] * 30) is None


def test_quiet_is_counted_from_the_last_change_of_any_page_or_spool():
    moving = [looks({0: (5, 9, 2), 1: (second, 8, 2)}) for second in range(10)]
    assert quiet_after(moving) == 0
    assert quiet_after([*moving, *[moving[-1]] * 7]) == 7


def test_a_rank_that_begins_is_a_change():
    assert quiet_after([*[looks({0: (1,)})] * 9, looks({0: (1,), 1: (1,)})]) == 0


@pytest.mark.parametrize(
    "vitals",
    [
        lambda second: used(second, io=second * MIB),  # reads weights
        lambda second: used(second, rss=(100 + 10 * second) * MIB),  # maps them
    ],
)
def test_a_rank_that_reads_or_grows_is_loading(vitals):
    sequence = [looks(STILL, {1: vitals(second)}, in_call={0}) for second in range(20)]
    assert quiet_after(sequence) <= 1
    waiting = [looks(STILL, {1: vitals(second)}, in_call={0, 1}) for second in range(20)]
    assert quiet_after(waiting) == 19  # what it does inside a call is no progress


def test_what_the_recorder_itself_writes_is_no_progress():
    sequence = [
        looks(STILL, {1: used(second, cpu=second / 1000, io=200 * second)}) for second in range(20)
    ]
    assert quiet_after(sequence) == 19


def test_computing_counts_while_a_rank_sets_up_and_not_for_ever():
    def sequence(seconds):
        return [looks(STILL, {1: used(second, cpu=second)}) for second in range(seconds)]

    assert quiet_after(sequence(20)) == 19  # in decode a busy core may be a wait on the device
    assert quiet_after(sequence(20), sets_up=True) <= 1
    longest = round(SET_UP_LIMITS * LIMIT)
    assert quiet_after(sequence(longest + 20), sets_up=True) >= 19


def test_a_watch_that_was_suspended_starts_anew():
    still = Stillness(LIMIT, lambda rank: False)
    look = looks(STILL)
    assert [still.quiet_s(look, now) for now in (0, 1, 2)] == [0, 1, 2]
    assert still.quiet_s(look, 3600) == 0
    assert still.quiet_s(look, 3601) == 1


def test_a_standstill_is_hinted_at_once_where_no_limit_is_set(tmp_path, monkeypatch):
    run, clock, said = RunDir(tmp_path), [0.0], io.StringIO()
    monkeypatch.setattr(hang_watch.time, "monotonic", lambda: clock[0])
    marks = {0: (1,)}
    monkeypatch.setattr(hang_watch, "look_at", lambda run: looks(dict(marks)))
    hints = hang_watch.hint(run, Narrator(stream=said))
    for second in range(0, 300, 2):
        clock[0] = float(second)
        marks[0] = (0,) if second < 100 else (1,)
        assert next(hints) is False
    lines = said.getvalue().splitlines()
    assert len(lines) == 4 and lines[1] == f"  harness status {tmp_path}"
    assert lines[0].startswith("no rank recorded anything for 60 s")


@pytest.fixture
def stuck(tmp_path, monkeypatch):
    """Four ranks, one of which never came to the last collective, and a clock that is set."""
    clock = [100.0]
    monkeypatch.setattr(hang_watch.time, "monotonic", lambda: clock[0])
    run = RunDir(write_run(tmp_path, 4, tp=4, missing={2}))
    run.hang.mkdir(parents=True)
    return run, clock


def test_a_look_sees_who_is_in_a_call_and_whose_page_changes(stuck):
    run, _ = stuck
    before = look_at(run)
    assert before.busy_in_call == {0, 1, 3} and before.marks.keys() == {0, 1, 2, 3}
    assert look_at(run).marks == before.marks
    with (run.spans / "rank-00002.spans.gz").open("ab") as file:
        file.write(b"more")
    assert {r for r in range(4) if look_at(run).marks[r] != before.marks[r]} == {2}


def advance(watching, clock, seconds, step=1.0):
    """What the watch yields over so many seconds; it ends with the first True."""
    said = []
    for _ in range(round(seconds / step)):
        clock[0] += step
        said.append(next(watching))
        if said[-1]:
            break
    return said


def test_stacks_are_asked_for_before_a_run_is_ended(stuck):
    run, clock = stuck
    (run.hang / "vitals-node0.json").write_text("{}")
    narrator, told = Narrator(stream=io.StringIO()), run.hang / hang_files.ASKED
    watching = watch(run, round(LIMIT * 1e9), narrator)
    assert not any(advance(watching, clock, LIMIT + 4)) and told.is_file()
    asked = json.loads(told.read_text())["id"]
    hang_files.done_file(run.hang, "node0").write_text(json.dumps({"id": "of another time"}))
    assert not any(advance(watching, clock, 3))
    hang_files.done_file(run.hang, "node0").write_text(json.dumps({"id": asked}))
    assert advance(watching, clock, 3) == [True]
    assert read_report(run).culprits == (2,)


def test_without_samplers_nobody_is_waited_for(stuck):
    run, clock = stuck
    narrator = Narrator(stream=io.StringIO())
    watching = watch(run, round(LIMIT * 1e9), narrator)
    assert advance(watching, clock, LIMIT + 4)[-1] and next(watching)


def test_ranks_that_move_while_stacks_are_taken_are_left_alone(stuck):
    run, clock = stuck
    said = io.StringIO()
    (run.hang / "vitals-node0.json").write_text("{}")
    watching = watch(run, round(LIMIT * 1e9), Narrator(stream=said))
    advance(watching, clock, LIMIT + 4)
    with (run.spans / "rank-00002.spans.gz").open("ab") as file:
        file.write(b"more")
    assert not any(advance(watching, clock, 31))  # the samplers never answer
    assert "the run goes on" in said.getvalue() and read_report(run) is None
