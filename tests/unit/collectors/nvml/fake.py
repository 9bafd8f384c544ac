"""A GPU made of dictionaries, for the logic that does not need a real one."""

from __future__ import annotations

from harness_collectors.nvml.api import NvmlError

NOT_SUPPORTED = NvmlError(3, "Not Supported")
CALLS = {
    "busy": 100,
    "memory_used": 1 << 30,
    "clock_sm": 1980,
    "clock_memory": 2619,
    "clock_reasons": 4,
    "temperature": 55,
    "power_usage": 400_000,
}


class FakeDevice:
    """Values by field id and call; an exception instead of a value is that call's outcome."""

    def __init__(self, index=0, fields=None, calls=None, clock=None, cost_ns=None):
        self.index = index
        self.values = {83: 1_000_000, 186: 412_000, 82: 65, **(fields or {})}
        self.calls = {**CALLS, **(calls or {})}
        self.asked = []
        self._clock = clock
        self._cost_ns = cost_ns or {}

    def identity(self):
        return {
            "index": self.index, "uuid": f"GPU-{self.index}", "name": "NVIDIA H100 80GB HBM3",
            "pci": "0000:00:00.0", "architecture": 9,
        }  # fmt: skip

    def _spend(self, key):
        self.asked.append(key)
        if self._clock is not None:
            self._clock.now += self._cost_ns.get(key, 1000)

    def fields(self, ids):
        for key in ids:
            self._spend(key[0])
        return [self.values.get(field, NOT_SUPPORTED) for field, _ in ids]

    def call(self, name):
        self._spend(name)
        value = self.calls[name]
        if isinstance(value, Exception):
            raise value
        return value


class FakeLibrary:
    """NVML with the devices it is given."""

    def __init__(self, *devices):
        self._devices = list(devices)
        self.closed = False

    def facts(self):
        return {"driver": "580.1", "nvml": "13"}

    def devices(self):
        return self._devices

    def close(self):
        self.closed = True


class FakeClock:
    """Time that only moves when told."""

    def __init__(self):
        self.now = 0

    def __call__(self):
        return self.now
