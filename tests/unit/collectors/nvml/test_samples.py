"""GPU samples: support matrix, costs, counters that wrap, GPUs that vanish."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.collectors.nvml.fake import FakeClock, FakeDevice, FakeLibrary

from harness_collectors import nvml
from harness_collectors.nvml import METRICS, GpuSource, power_usage_kind
from harness_collectors.nvml.api import NvmlError
from harness_collectors.sampling import Unavailable


def values(source, device=0):
    return {r.metric: (r.value, r.unit) for r in source.read() if r.device == device}


def test_units_and_factors():
    read = values(GpuSource(FakeLibrary(FakeDevice(fields={138: 3, 139: 4}))))
    assert read["power_instant"] == (412.0, "W")
    assert read["energy"] == (1000.0, "J")
    assert read["busy"] == (1.0, "1")
    assert read["nvlink_tx_bytes"] == (3072, "bytes")
    assert read["memory_used"] == (1 << 30, "bytes")
    assert read["clock_event_reasons"] == (4, "bits")


def test_support_matrix_names_every_metric_and_the_reason():
    library = FakeLibrary(FakeDevice(calls={"temperature": NvmlError(4, "No Permission")}))
    source = GpuSource(library)
    (device,) = source.describe()["devices"]
    assert set(device["support"]) == {metric.name for metric in METRICS}
    assert device["support"]["energy"] == "ok"
    assert device["support"]["nvlink_tx_bytes"] == "Not Supported (3)"
    assert device["support"]["temperature_gpu"] == "No Permission (4)"
    assert "temperature_gpu" not in values(source)
    assert source.problems() == []  # what never worked is no failure


def test_unsupported_is_never_zero():
    assert "nvlink_tx_bytes" not in values(GpuSource(FakeLibrary(FakeDevice())))


def test_dear_readings_are_rare_and_come_with_first_and_last_sample():
    clock = FakeClock()
    device = FakeDevice(clock=clock, cost_ns={83: 2_400_000})
    source = GpuSource(FakeLibrary(device), clock=clock)
    assert source.describe()["devices"][0]["slow"] == ["energy"]
    seen = []
    for _ in range(12):
        seen.append("energy" in values(source))
        clock.now += 1_000_000_000
    assert seen == [True] + [False] * 4 + [True] + [False] * 4 + [True, False]
    source.finish()
    assert "energy" in values(source)


def test_fields_are_fetched_in_one_call():
    device = FakeDevice()
    source = GpuSource(FakeLibrary(device))
    calls = []
    real = device.fields
    device.fields = lambda ids: calls.append([key for key, _ in ids]) or real(ids)
    values(source)
    assert calls == [[186, 83, 82]]


@given(st.lists(st.integers(0, (1 << 32) - 1), max_size=30))
def test_wrapping_counters_are_unrolled(steps):
    device = FakeDevice(fields={197: 5, 198: 5})
    source = GpuSource(FakeLibrary(device), clock=FakeClock())  # by a real one they may be dear
    totals = [values(source)["pcie_tx_bytes"][0]]
    for step in steps:
        device.values[197] = (device.values[197] + step) % (1 << 32)
        totals.append(values(source)["pcie_tx_bytes"][0])
    assert totals == [float(sum(steps[:i])) for i in range(len(steps) + 1)]


def test_a_lost_gpu_is_named_and_the_others_go_on():
    lost, well = FakeDevice(0), FakeDevice(1)
    source = GpuSource(FakeLibrary(lost, well))
    lost.calls = dict.fromkeys(lost.calls, NvmlError(15, "GPU is lost"))
    values(source)
    lost.asked.clear()
    assert values(source, device=1)
    assert lost.asked == []
    assert source.problems() == ["GPU 0 is lost"]


def test_a_reading_that_fails_later_is_counted():
    device = FakeDevice()
    source = GpuSource(FakeLibrary(device))
    device.calls["clock_sm"] = NvmlError(999, "Unknown Error")
    assert "clock_sm" not in values(source)
    assert "clock_memory" in values(source)
    assert source.problems() == ["GPU 0 did not answer: clock_sm 2 times"]


def test_no_gpu_closes_the_library():
    library = FakeLibrary()
    with pytest.raises(Unavailable, match="sees no GPU"):
        GpuSource(library)
    assert library.closed


@pytest.mark.parametrize(
    ("name", "architecture", "kind"),
    [
        ("NVIDIA H100 80GB HBM3", 9, "average over one second"),
        ("NVIDIA A10", 7, "average over one second"),
        ("NVIDIA A100-SXM4-80GB", 7, "momentary"),
        ("Tesla V100-SXM2-16GB", 5, "momentary"),
        ("whatever", None, "unknown"),
    ],
)
def test_what_power_usage_means(name, architecture, kind):
    assert power_usage_kind({"name": name, "architecture": architecture}) == kind


def test_without_a_driver_check_says_so(monkeypatch):
    def refuse():
        raise Unavailable("no NVIDIA driver", "hint")

    monkeypatch.setattr(nvml, "open_library", refuse)
    answer = nvml.COLLECTOR.check("cpu")
    assert (answer.available, answer.reason, answer.hint) == (False, "no NVIDIA driver", "hint")


def test_check_lists_the_gpus_and_lets_go(monkeypatch):
    library = FakeLibrary(FakeDevice())
    monkeypatch.setattr(nvml, "open_library", lambda: library)
    answer = nvml.COLLECTOR.check("cuda")
    assert answer.available
    assert answer.facts["gpus"][0]["uuid"] == "GPU-0"
    assert library.closed
