"""Inside a rank that nsys records: an NVTX range for every unit, and the window of steps."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, Protocol

from harness_collectors.names.step_marks import annotation
from harness_collectors.nsys.command import WINDOW_RANGE
from harness_collectors.sampling import boot_id
from harness_collectors.torch_profiler.schedule import Schedule, Verdict, WindowOptions
from harness_schemas.spi import UnitKey

NAME: Final = "nsys"
CLOCK_MARKS: Final = 5
_ALWAYS: Final = Verdict(record=True, perturbed=True)


class Nvtx(Protocol):
    """How ranges are written, and how the recording is opened and closed."""

    def push(self, text: str) -> None:
        """Open a range."""

    def pop(self) -> None:
        """Close the innermost range."""

    def mark(self, text: str) -> None:
        """A moment."""

    def open(self) -> None:
        """Begin to record."""

    def close(self) -> None:
        """Stop recording."""


class TorchNvtx:
    """Through torch, where it is built for CUDA; the recording is opened by CUDA's profiler API."""

    def __init__(self) -> None:
        import torch

        self._nvtx: Any = torch.cuda.nvtx
        self._runtime: Any = torch.cuda.cudart()

    def push(self, text: str) -> None:
        """See `Nvtx`."""
        self._nvtx.range_push(text)

    def pop(self) -> None:
        """See `Nvtx`."""
        self._nvtx.range_pop()

    def mark(self, text: str) -> None:
        """See `Nvtx`."""
        self._nvtx.mark(text)

    def open(self) -> None:
        """See `Nvtx`."""
        self._runtime.cudaProfilerStart()

    def close(self) -> None:
        """See `Nvtx`."""
        self._runtime.cudaProfilerStop()


class PackageNvtx:
    """Through the package nvtx (up to 0.2.11 for nsys before 2024); the recording is opened by a
    range of a name that nsys was told."""

    def __init__(self) -> None:
        import nvtx

        self._nvtx: Any = nvtx

    def push(self, text: str) -> None:
        """See `Nvtx`."""
        self._nvtx.push_range(text)

    def pop(self) -> None:
        """See `Nvtx`."""
        self._nvtx.pop_range()

    def mark(self, text: str) -> None:
        """See `Nvtx`."""
        self._nvtx.mark(text)

    def open(self) -> None:
        """See `Nvtx`."""
        self._nvtx.push_range(WINDOW_RANGE)

    def close(self) -> None:
        """See `Nvtx`."""
        self._nvtx.pop_range()


def find_nvtx(device: str) -> Nvtx:
    """The way to write ranges here.

    Raises:
        RuntimeError: there is none.
    """
    if device != "cpu":
        return TorchNvtx()
    try:
        return PackageNvtx()
    except ImportError:
        raise RuntimeError(
            "the package nvtx is not installed: without it units have no NVTX ranges"
        ) from None


class NsysHook:
    """Names units, and opens and closes the window (harness_schemas.spi.RankHook).

    `window` False: everything is recorded, and every unit is disturbed.
    """

    name = NAME

    def __init__(
        self,
        *,
        device: str = "cpu",
        window: bool = True,
        steps: Iterable[int] = (),
        first: int = 3,
        count: int = 3,
        every: int | None = None,
    ) -> None:
        self._device = device
        options = WindowOptions(tuple(steps), first, count, every)
        self._schedule = Schedule(options) if window else None
        self._open = False

    def start(self, rank: int, world_size: int, folder: Path) -> None:
        """Find out how ranges are written here."""
        self._nvtx = find_nvtx(self._device)
        if self._schedule is None:
            self._mark_clock()

    def before_unit(self, key: UnitKey) -> str | None:
        """Open or close the window as `key` wants it, and the unit's range."""
        verdict = self._schedule.enter(key) if self._schedule else _ALWAYS
        if self._open and not verdict.record:
            self._close()
        elif self._schedule and verdict.record and not self._open:
            self._nvtx.open()
            self._open = True
            self._mark_clock()
        self._nvtx.push(annotation(key))
        return NAME if verdict.perturbed else None

    def after_unit(self, key: UnitKey) -> None:
        """Close the unit's range."""
        self._nvtx.pop()

    def pause(self) -> None:
        """Close a window that is still open."""
        if self._open:
            self._close()

    def stop(self) -> None:
        """Close a window that is still open; idempotent."""
        if self._open:
            self._close()

    def _close(self) -> None:
        self._mark_clock()
        self._nvtx.close()
        self._open = False

    def _mark_clock(self) -> None:
        """Write down both clocks: ingest finds the report's place on them by the moment of the
        mark. Several times: one may be held up between the reading and the mark."""
        boot = boot_id()
        for _ in range(CLOCK_MARKS):
            monotonic, wall = time.monotonic_ns(), time.time_ns()
            self._nvtx.mark(f"harness:clock boot={boot} mono={monotonic} wall={wall}")
