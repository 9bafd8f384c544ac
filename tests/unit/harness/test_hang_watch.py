"""When nobody makes progress, and when it only looks so."""

from __future__ import annotations

import io

import pytest

from harness.progress import Narrator
from harness.status import hang_watch
from harness.status.hang_watch import SET_UP_LIMITS, Look, Stillness, Vitals
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
