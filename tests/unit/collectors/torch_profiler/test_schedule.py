"""Which units a profiler window holds, and which it disturbs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness_collectors.torch_profiler.schedule import Schedule, WindowOptions
from harness_schemas.spi import UnitKey


def run(options, batches=1, steps=10, microbatches=1, residual=False, warmup=0):
    """Verdicts of a whole run, by (batch, phase, step, microbatch)."""
    schedule = Schedule(options, residual)
    found = {}
    for batch in range(batches):
        for step in range(steps + 1):
            for micro in range(microbatches):
                phase = "decode" if step else "prefill"
                key = UnitKey(phase, batch, micro, 0, step, warmup=batch < warmup)
                found[batch, step, micro] = schedule.enter(key)
        found[batch, "post", 0] = schedule.enter(UnitKey("postprocess", batch, repeat=0))
    return found


def recorded(found):
    return [place for place, verdict in found.items() if verdict.record]


def marked(found):
    return [place for place, verdict in found.items() if verdict.perturbed]


def test_one_window_with_its_lead_and_trail():
    found = run(WindowOptions(first=3, count=2))
    assert recorded(found) == [(0, 3, 0), (0, 4, 0)]
    assert marked(found) == [(0, step, 0) for step in (2, 3, 4, 5)]


def test_a_window_that_begins_with_the_first_step_is_led_by_the_prefill():
    found = run(WindowOptions(first=1, count=1))
    assert found[0, 0, 0].lead
    assert marked(found) == [(0, step, 0) for step in (0, 1, 2)]


def test_windows_come_again():
    found = run(WindowOptions(first=2, count=1, every=4), batches=2, steps=5)
    # Decode steps 1-5 are in batch 0, 6-10 in batch 1: the run's steps 2, 6 and 10.
    assert recorded(found) == [(0, 2, 0), (1, 1, 0), (1, 5, 0)]


def test_chosen_steps_of_every_batch():
    found = run(WindowOptions(steps=(0, 4)), batches=2, steps=5)
    assert recorded(found) == [(0, 0, 0), (0, 4, 0), (1, 0, 0), (1, 4, 0)]


def test_micro_batches_of_a_step_count_once_and_stay_together():
    found = run(WindowOptions(first=2, count=1), microbatches=3)
    assert recorded(found) == [(0, 2, 0), (0, 2, 1), (0, 2, 2)]


def test_warm_up_neither_counts_nor_is_recorded():
    found = run(WindowOptions(first=1, count=1), batches=2, steps=3, warmup=1)
    assert recorded(found) == [(1, 1, 0)]


def test_the_trail_of_a_batch_s_last_step_is_what_follows_it():
    found = run(WindowOptions(steps=(10,)))
    assert found[0, "post", 0].perturbed


def test_a_profiler_that_stays_attached_marks_all_that_follows():
    found = run(WindowOptions(first=3, count=1), residual=True)
    assert not found[0, 1, 0].perturbed
    assert all(found[0, step, 0].perturbed for step in range(2, 11))


windows = st.builds(
    WindowOptions,
    steps=st.lists(st.integers(0, 12), max_size=4).map(tuple),
    first=st.integers(1, 12),
    count=st.integers(1, 5),
    every=st.none() | st.integers(2, 9),
)


@given(windows, st.integers(1, 3), st.integers(0, 12), st.integers(1, 3), st.integers(0, 2))
def test_every_window_is_led_and_trailed_by_marked_units(windows, batches, steps, micro, warmup):
    found = run(windows, batches, steps, micro, warmup=warmup)
    order = list(found)
    verdicts = list(found.values())
    for place, verdict in enumerate(verdicts):
        assert verdict.perturbed or not (verdict.record or verdict.lead)
        if verdict.record:
            assert order[place][0] >= warmup
            if place + 1 < len(verdicts):
                assert verdicts[place + 1].perturbed
    # Where a step precedes within its batch, the profiler was opened at that one's end.
    for place in range(1, len(verdicts)):
        before, now = order[place - 1], order[place]
        if verdicts[place].record and before[0] == now[0] and before[1] != "post":
            assert verdicts[place - 1].lead or verdicts[place - 1].record


@pytest.mark.parametrize("every", [None, 5])
def test_holds_counts_from_first(every):
    options = WindowOptions(first=4, count=2, every=every)
    held = [number for number in range(1, 16) if options.holds(number)]
    assert held == ([4, 5] if every is None else [4, 5, 9, 10, 14, 15])
