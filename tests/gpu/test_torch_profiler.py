"""The hook on a real GPU: kernels belong to the unit that launched them, graphs included."""

from __future__ import annotations

import time

import pytest

from harness_collectors.torch_profiler import COLLECTOR, ProfilerHook
from harness_schemas.spi import UnitKey

pytestmark = pytest.mark.gpu


class Work:
    """One step of eager kernels, and the same as a CUDA graph."""

    def __init__(self):
        import torch

        self.a = torch.randn(256, 256, device="cuda")
        self.eager()
        torch.cuda.synchronize()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.eager()

    def eager(self):
        b = self.a
        for _ in range(10):
            b = b.relu()
            b = b @ self.a
        return b


def run_hook(folder, step, units=8, **options):
    hook = ProfilerHook(device="cuda", **options)
    hook.start(0, 1, folder)
    keys = [UnitKey("warmup"), UnitKey("prefill", 0, 0, 0, 0)]
    keys += [UnitKey("decode", 0, 0, 0, number) for number in range(1, units + 1)]
    marks = {}
    for key in keys:
        marks[key.phase, key.step] = hook.before_unit(key)
        step(key)
        hook.after_unit(key)
    hook.stop()
    tables = {}
    for batch in COLLECTOR.ingest(sorted(folder.glob("*.gz")), None):
        tables.setdefault(batch.table, []).extend(batch.data.to_pylist())
    return tables, marks


def kernels_by_step(tables):
    """The element-wise kernels of each step; a matrix product may be one kernel or two."""
    found = {}
    for span in tables["spans"]:
        ours = span["category"] == "compute" and "elementwise" in span["name"]
        if span["timeline"] == "device" and ours:
            found.setdefault(span["step"], []).append(span)
    return found


def test_kernels_belong_to_the_unit_that_launched_them(tmp_path):
    """Nothing waits for the device in a step: kernels run on long after their unit."""
    work = Work()
    tables, marks = run_hook(tmp_path, lambda key: work.eager(), first=3, count=2)
    found = kernels_by_step(tables)
    assert {step: len(spans) for step, spans in found.items()} == {3: 10, 4: 10}
    assert all(span["launch_ns"] <= span["start_ns"] + 2000 for s in found.values() for span in s)
    assert [marks["decode", step] for step in range(1, 9)] == [
        None, *["torch_profiler"] * 4, None, None, None
    ]  # fmt: skip
    (state,) = tables["collection"]
    assert state["state"] == "ok", state["reason"]


def test_graph_replays_belong_to_their_launch(tmp_path):
    work = Work()
    tables, _ = run_hook(tmp_path, lambda key: work.graph.replay(), steps=[2, 3])
    found = kernels_by_step(tables)
    assert {step: len(spans) for step, spans in found.items()} == {2: 10, 3: 10}
    for spans in found.values():
        assert len({span["correlation"] for span in spans}) == 1
        assert all("graph_launch" in span["attrs"] for span in spans)


def test_the_first_recorded_unit_does_not_pay_for_cupti(tmp_path):
    """Buffers are requested at the first launch of a window, which is the hook's own."""
    work = Work()
    tables, _ = run_hook(tmp_path, lambda key: work.eager(), first=3, count=2)
    requests = [s for s in tables["spans"] if s["name"] == "Activity Buffer Request"]
    assert requests
    assert all(span["phase"] is None for span in requests)


def test_times_are_those_of_the_monotonic_clock(tmp_path):
    import torch

    work = Work()
    bounds = {}

    def step(key):
        torch.cuda.synchronize()
        began = time.monotonic_ns()
        work.eager()
        torch.cuda.synchronize()
        bounds[key.step] = (began, time.monotonic_ns())

    tables, _ = run_hook(tmp_path, step, first=2, count=5)
    for number, spans in kernels_by_step(tables).items():
        began, ended = bounds[number]
        assert min(span["launch_ns"] for span in spans) > began - 3000
        assert max(span["end_ns"] for span in spans) < ended + 3000


def test_nothing_is_left_behind_by_a_closed_window(tmp_path):
    """Launches cost the same before the first window and after the last (CUPTI detached)."""
    import torch

    small = torch.zeros(16, device="cuda")

    def launch_us():
        best = []
        for _ in range(15):
            torch.cuda.synchronize()
            before = time.perf_counter()
            for _ in range(500):
                small.add_(1)
            torch.cuda.synchronize()
            best.append((time.perf_counter() - before) / 500 * 1e6)
        return sorted(best)[3]

    launch_us()
    before = launch_us()
    tables, _ = run_hook(tmp_path, lambda key: small.add_(1), first=3, count=2)
    assert '"detached": true' in tables["collection"][0]["detail"]
    after = launch_us()
    print(f"launch {before:.2f} us before, {after:.2f} us after, {tables['collection']}")
    assert after < 1.3 * before
