"""Damaged output of perf: no exception, and nothing that the whole does not say."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import cuts, doubled, flipped, interleaved_chunks, interleaved_lines
from unit.collectors.perf.outputs import CSV, JSON, PEOPLE, SCRIPT

from harness_collectors.perf.script import is_script, read_script
from harness_collectors.perf.stat import read_stat, stat_form

STATES = {"ok", "estimated", "not_supported", "not_counted"}
FORMS = {"json": JSON.encode(), "csv": CSV.encode(), "people": PEOPLE.encode()}


def damaged(data, other):
    return st.one_of(
        cuts(data),
        doubled(data),
        flipped(data),
        interleaved_lines(data, other),
        interleaved_chunks(data, other),
    )


@settings(max_examples=300, deadline=None)
@given(st.one_of(*(damaged(data, other) for data in FORMS.values() for other in FORMS.values())))
def test_damaged_counts(data):
    text = data.decode("utf-8", "replace")
    reading = read_stat(text)
    assert len(reading.counters) <= text.count("\n") + 1
    for counter in reading.counters:
        assert counter.state in STATES
        assert (counter.value is None) == (counter.state in ("not_supported", "not_counted"))
        assert counter.running_share is None or 0 < counter.running_share <= 1
        assert counter.interval_ns is None or counter.interval_ns >= 0


@settings(deadline=None)
@given(st.sampled_from(sorted(FORMS)).flatmap(lambda form: cuts(FORMS[form])))
def test_a_cut_file_says_nothing_that_the_whole_one_does_not(data):
    known = {
        (c.event, c.scope, c.offset_ns, c.value, c.state)
        for whole in FORMS.values()
        for c in read_stat(whole.decode()).counters
    }
    for c in read_stat(data.decode("utf-8", "replace")).counters:
        assert (c.event, c.scope, c.offset_ns, c.value, c.state) in known


@given(damaged(SCRIPT.encode(), JSON.encode()))
def test_damaged_stacks(data):
    text = data.decode("utf-8", "replace")
    is_script(text)
    stacks = read_script(text)
    assert stacks.samples == sum(stacks.folded.values()) == sum(stacks.top_frames.values())
    assert stacks.samples <= text.count("\n") + 1


@given(cuts(SCRIPT.encode()))
def test_cut_stacks_hold_no_invented_frame(data):
    whole = {frame for stack in read_script(SCRIPT).folded for frame in stack.split(";")}
    for stack in read_script(data.decode()).folded:
        assert set(stack.split(";")) <= whole


@pytest.mark.parametrize(
    "line",
    ["1," * 4000, "9" * 8000, "a-1," * 2000, "0,,a," + "1," * 3000, "x " * 4000, "a" * 8000 + ":"],
)
def test_no_line_costs_more_than_its_length(line):
    """Patterns with gaps must not try all ways to fill them: 200 lines of 8 KiB at once."""
    text = (line + "\n") * 200
    began = time.process_time()
    stat_form(text)
    is_script(text)
    read_stat("1.20,msec,task-clock,1204272,100.00,0.697,CPUs utilized\n" + text)
    read_stat(" Performance counter stats for 'x':\n" + text)
    read_script(text)
    assert time.process_time() - began < 5  # 0.2 s; 216 s with one careless pattern
