"""While the recorder is quiet only units are recorded, and ordinals go on."""

from __future__ import annotations

import time

import pytest
from unit.probe.spool import lines, read

import harness_probe as probe


@pytest.fixture
def folder(tmp_path):
    assert probe.start(tmp_path, rank=0, world_size=2, local_rank=0)
    yield tmp_path
    probe.stop()


def recorded(folder):
    probe.stop()
    return read(folder)


def work(group, step):
    """A unit with everything that a rank records."""
    with probe.unit("decode", step=step), probe.span("layer", layer=1):
        with probe.collective("all_reduce", group, 64), probe.collective("all_reduce", group, 64):
            pass
        with probe.p2p("send", 1, 8):
            pass
        with probe.io("read", "x") as file:
            file.add(3)
            file.note(a=1)
        with probe.device_span("copy"):
            pass


def test_only_units_are_recorded_and_ordinals_go_on(folder):
    group = probe.group([0, 1])
    work(group, 1)
    with probe.quiet():
        assert probe.is_quiet()
        work(group, 2)
        work(group, 3)
    assert not probe.is_quiet()
    work(group, 4)
    spool = recorded(folder)
    steps = {line["id"]: line["step"] for line in lines(spool, "unit")}
    names = {step: [] for step in range(1, 5)}
    for record in spool.records:
        names[steps[record.unit_id]].append(record.name)
    everything = ["all_reduce", "send", "read", "layer", "decode"]
    assert names == {1: everything, 2: ["decode"], 3: ["decode"], 4: everything}
    # A call inside a call uses up nothing, quiet or not: steps 1 to 4 are ordinals 0 to 3.
    for name in ("all_reduce", "send"):
        assert [r.ordinal for r in spool.records if r.name == name] == [0, 3]


def test_what_is_nested_or_fails_inside_leaves_the_state_as_it_was(folder):
    with pytest.raises(KeyError), probe.quiet():
        with probe.quiet():
            pass
        assert probe.is_quiet()
        with probe.collective("barrier", 1, 0):
            raise KeyError
    assert not probe.is_quiet()
    with probe.collective("barrier", 1, 0):
        pass
    (record,) = recorded(folder).records
    assert (record.name, record.ordinal) == ("barrier", 1)


def test_a_failed_call_is_not_pending_if_it_was_not_recorded(folder):
    with probe.quiet(), pytest.raises(RuntimeError), probe.collective("barrier", 1, 0):
        raise RuntimeError("gone")
    assert not read(folder).live.pending


def test_without_a_recorder_quiet_is_nothing():
    with probe.quiet(), probe.span("x"):
        assert not probe.is_quiet()


def test_a_quiet_span_costs_less_than_a_recorded_one(folder):
    def cost():
        begin = time.thread_time_ns()
        for _ in range(20_000):
            with probe.span("x"):
                pass
        return time.thread_time_ns() - begin

    cost()
    recording, silent = [], []
    for _ in range(5):
        recording.append(cost())
        with probe.quiet():
            silent.append(cost())
    assert min(silent) < 0.7 * min(recording)
