"""Delays put into a rank on purpose, to prove that they are found (harness run --inject)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import harness_probe as probe
from harness_runners.plan import InjectPlan

CALIBRATION_CYCLES = 20_000_000


class Injector:
    """Called by the pipeline before each step and around each layer. Records no delay itself:
    the evidence has to show it."""

    def host_step(self) -> None:
        """The step's input has arrived or is on its way; its work has not been launched."""

    def device_step(self) -> None:
        """The step's first work is about to be launched, or captured."""

    def layer(self, index: int) -> AbstractContextManager[Any, Any]:
        """The span of a layer."""
        return probe.span("layer", category="layer", layer=index)


class BusyHost(Injector):
    """Keeps the host busy for `delay_ns`, as slow Python or a stolen core would."""

    def __init__(self, delay_ns: int, every: str) -> None:
        self._delay_ns = delay_ns
        self._every = every

    def host_step(self) -> None:
        if self._every == "step":
            self._spin()

    def layer(self, index: int) -> AbstractContextManager[Any, Any]:
        return self._late_layer(index) if self._every == "layer" else super().layer(index)

    @contextlib.contextmanager
    def _late_layer(self, index: int) -> Iterator[None]:
        with super().layer(index):
            self._spin()
            yield

    def _spin(self) -> None:
        end = time.monotonic_ns() + self._delay_ns
        while time.monotonic_ns() < end:
            pass


class BusyDevice(Injector):
    """Keeps the GPU busy for `delay_ns`, as slower kernels would; works inside a capture."""

    def __init__(self, delay_ns: int, every: str) -> None:
        import torch

        self._every = every
        self._sleep = torch.cuda._sleep
        self._cycles = round(delay_ns * cycles_per_ns(torch))

    def device_step(self) -> None:
        if self._every == "step":
            self._sleep(self._cycles)

    def layer(self, index: int) -> AbstractContextManager[Any, Any]:
        return self._late_layer(index) if self._every == "layer" else super().layer(index)

    @contextlib.contextmanager
    def _late_layer(self, index: int) -> Iterator[None]:
        with super().layer(index):
            self._sleep(self._cycles)
            yield


def cycles_per_ns(torch: Any) -> float:
    """Clock of the GPU's spinning kernel, measured at the speed it settles at under load."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    for _ in range(3):  # the first ones raise the clock
        start.record()
        torch.cuda._sleep(CALIBRATION_CYCLES)
        end.record()
        end.synchronize()
    return float(CALIBRATION_CYCLES / (start.elapsed_time(end) * 1e6))


def make_injector(plan: InjectPlan | None, rank: int, device: Any) -> Injector:
    """The injector of this rank; preflight has refused what the device cannot do."""
    if plan is None or plan.rank != rank or plan.delay_ns == 0:
        return Injector()
    if plan.where == "device" and device.type == "cuda":
        return BusyDevice(plan.delay_ns, plan.every)
    return BusyHost(plan.delay_ns, plan.every)
