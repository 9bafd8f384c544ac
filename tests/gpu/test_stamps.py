"""The clock that graphs are stamped with, on a real GPU."""

from __future__ import annotations

import pytest

from harness_probe.graphs import middle_gap
from harness_probe.stamps import ITEM_BYTES, StampKernel

pytestmark = pytest.mark.gpu


@pytest.fixture
def stamp():
    """Writes stamp `number`; `stamp.read()` returns what has been written."""
    import torch

    slots = torch.zeros(64, dtype=torch.int64, device="cuda")
    kernel = StampKernel()

    def write(number):
        stream = torch.cuda.current_stream().cuda_stream
        kernel.launch(stream, slots.data_ptr() + ITEM_BYTES * number)

    write.read = lambda: (torch.cuda.synchronize(), slots.tolist())[1]
    write(0)
    torch.cuda.synchronize()
    return write


def capture(work):
    import torch

    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph


def test_stamps_follow_each_other_within_microseconds(stamp):
    graph = capture(lambda: [stamp(number) for number in range(32)])
    for _ in range(3):
        graph.replay()
    stamps = stamp.read()[:32]
    assert stamps == sorted(stamps) and len(set(stamps)) == 32
    assert 100 < middle_gap(stamps) < 5_000


def test_what_lies_between_two_stamps_takes_as_long_as_events_say(stamp):
    import torch

    cycles = 2_000_000

    def work():
        stamp(0)
        torch.cuda._sleep(cycles)
        stamp(1)

    graph = capture(work)
    bare = capture(lambda: torch.cuda._sleep(cycles))
    events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
    for _ in range(3):
        graph.replay()
        events[0].record()
        bare.replay()
        events[1].record()
    begin, end = stamp.read()[:2]
    by_events = events[0].elapsed_time(events[1]) * 1e6
    assert end - begin == pytest.approx(by_events, rel=0.02, abs=10_000)
