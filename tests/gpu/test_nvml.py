"""NVML on a real GPU: the support matrix is right, a busy GPU shows, energy adds up."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from harness_collectors import nvml
from harness_collectors.nvml import METRICS, GpuSource
from harness_collectors.nvml.api import open_library

pytestmark = pytest.mark.gpu


def keep_busy(seconds):
    import torch

    a = torch.randn(4096, 4096, device="cuda", dtype=torch.bfloat16)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(20):
            a @ a
        torch.cuda.synchronize()


def latest(source):
    source.finish()
    return {reading.metric: reading.value for reading in source.read() if reading.device == 0}


def test_check_finds_the_gpus():
    answer = nvml.COLLECTOR.check("cuda")
    assert answer.available, answer.reason
    assert all(gpu["uuid"].startswith("GPU-") for gpu in answer.facts["gpus"])
    assert answer.facts["driver"]


def test_every_metric_is_read_or_said_to_be_unsupported():
    source = GpuSource(open_library())
    described = source.describe()["devices"][0]
    read = latest(source)
    assert set(described["support"]) == {metric.name for metric in METRICS}
    assert set(read) == {name for name, state in described["support"].items() if state == "ok"}
    assert {"power_usage", "clock_sm", "memory_used", "temperature_gpu"} <= set(read)
    assert source.problems() == []
    source.close()


def test_energy_agrees_with_power():
    source = GpuSource(open_library())
    if "energy" not in latest(source):
        pytest.skip("this GPU has no energy counter")
    keep_busy(1)
    first, began = latest(source), time.monotonic()
    keep_busy(3)
    second, seconds = latest(source), time.monotonic() - began
    watts = (second["energy"] - first["energy"]) / seconds
    # Power is an average over the last second of a steady load: coarse, yet no factor off.
    assert watts == pytest.approx(second["power_usage"], rel=0.35)
    assert second["busy"] > 0.5
    source.close()


def test_cheap_sample_is_cheap():
    source = GpuSource(open_library())
    latest(source)
    times = []
    for _ in range(50):
        before = time.perf_counter()
        list(source.read())
        times.append(time.perf_counter() - before)
    assert sorted(times)[25] < 5e-3
    source.close()


def test_the_agent_samples_and_ingest_reads(tmp_path):
    spec = [{"target": "harness_collectors.nvml:sampler", "options": {"interval": "100ms"}}]
    argv = [sys.executable, "-m", "harness_collectors.agent", "--run-dir", str(tmp_path)]
    agent = subprocess.Popen([*argv, "--samplers", json.dumps(spec)], stdin=subprocess.PIPE)
    keep_busy(3)
    agent.stdin.close()
    assert agent.wait(10) == 0
    files = sorted(tmp_path.glob("artifacts/nvml/*/*.json*"))
    tables = {}
    for batch in nvml.COLLECTOR.ingest(files, None):
        tables.setdefault(batch.table, []).extend(batch.data.to_pylist())
    (state,) = tables["collection"]
    assert (state["state"], state["unreadable"]) == ("ok", 0)
    powers = [row for row in tables["samples"] if row["metric"] == "power_usage"]
    assert len(powers) >= 10
    assert max(row["value"] for row in powers) > 30
