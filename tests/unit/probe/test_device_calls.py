"""What a call on the device timeline becomes in the tables, with numbers for the GPU's events."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest

import harness_probe as probe
from harness_collectors.app_timers import AppTimers
from harness_probe import api
from harness_probe.device import DeviceTimeline
from harness_probe.device_calls import record_call
from harness_schemas.live import Slot, read_page
from harness_schemas.spi import IngestContext


class Timeline:
    """Events are numbers; a record is written at once."""

    capturing = None
    base = SimpleNamespace(at=lambda event: event, event=None)
    is_capturing = staticmethod(lambda: False)

    def __init__(self, rec):
        self._rec, self._ticks = rec, itertools.count(1_000, 1_000)
        self.mark = self._ticks.__next__

    def add(self, interval):
        DeviceTimeline.write(self, interval, interval.start, interval.end)


@pytest.fixture
def rows(tmp_path):
    """The row of a send that the stream ran, and of one that was posted before."""
    probe.start(tmp_path, rank=0, world_size=2)
    rec = api.recorder()
    group = rec.define_group((0, 1))
    with probe.unit("decode", step=1):
        for posted in (None, (1, 77, rec.unit_id)):
            record_call(rec, Timeline(rec), "send", group, 1, 64, "f16", lambda: None, posted)
    probe.stop()
    batches = AppTimers().ingest(sorted(tmp_path.glob("*.meta.jsonl")), IngestContext(tmp_path))
    return [
        row for batch in batches if batch.table == "collectives" for row in batch.data.to_pylist()
    ]


def test_a_call_on_the_stream_has_the_bounds_of_its_launch(rows):
    assert rows[0]["return_ns"] is not None and rows[0]["unsplit_reason"] is None


def test_the_wait_for_a_posted_call_says_nothing_about_its_kernel(rows):
    waited = rows[1]
    assert (waited["return_ns"], waited["low_ns"]) == (None, None)
    assert waited["unsplit_reason"].startswith("posted")
    assert (waited["seq"], waited["enqueue_ns"]) == (1, 77)


def test_while_the_first_call_of_a_group_is_made_it_is_pending(tmp_path):
    """NCCL makes the communicator in it, and its host may stand there; later calls return at once
    and only show that the rank moves."""
    probe.start(tmp_path, rank=0, world_size=2)
    rec = api.recorder()
    group, seen = rec.define_group((0, 1)), []

    def call():
        seen.append(read_page(tmp_path / "rank-00000.live"))

    try:
        with probe.unit("decode", step=1):
            for _ in range(2):
                record_call(rec, Timeline(rec), "all_reduce", group, -1, 64, "f16", call)
        first, second = seen
        assert (first.pending.group, first.pending.ordinal, first.pending.num_bytes) == (
            group,
            0,
            64,
        )
        assert second.pending is None and second.updated_ns > first.updated_ns
        assert second.slots == (Slot(group, None, None, 1, 0),)
    finally:
        probe.stop()
