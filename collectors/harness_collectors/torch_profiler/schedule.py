"""Which units torch.profiler records, and which it disturbs: the same on every rank.

A window does not only slow the units inside it. Opening the profiler costs time at the end of
the unit before (the lead), closing it delays the one after (the trail), and ranks that record
nothing wait for those that do. So every rank follows the schedule and marks lead, window and
trail as perturbed, whether or not it records.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness_schemas.spi import UnitKey

STEPS = ("prefill", "decode", "mixed")


@dataclass(frozen=True)
class WindowOptions:
    """When a window opens.

    With `steps`, in every batch: these decode steps (0: the prefill). Otherwise windows of
    `count` decode steps: the first at the run's decode step `first` (counted from 1, warm-up
    left out, batches together), then one each `every` steps, or no further one.
    """

    steps: tuple[int, ...] = ()
    first: int = 3
    count: int = 3
    every: int | None = None

    def holds(self, number: int) -> bool:
        """Whether the run's decode step of that number is recorded."""
        since = number - self.first
        if since < 0:
            return False
        return (since if self.every is None else since % self.every) < self.count


@dataclass(frozen=True)
class Verdict:
    """What becomes of a unit: recorded, followed by a recorded one, disturbed."""

    record: bool = False
    lead: bool = False
    perturbed: bool = False


class Schedule:
    """Judges units in the order in which they run.

    `residual`: the profiler stays attached after its first window and slows what follows.
    """

    def __init__(self, options: WindowOptions, residual: bool = False) -> None:
        self._options = options
        self._residual = residual
        self._decoded = 0
        self._current: tuple[int | None, int | None, int | None] | None = None
        self._recording = False
        self._recorded = False

    def enter(self, key: UnitKey) -> Verdict:
        """The verdict on the unit that begins now."""
        measured = key.phase in STEPS and not key.warmup
        if measured and key.phase != "prefill":
            self._count(key)
        record = measured and self._records(key)
        lead = measured and self._leads(key)
        trail = self._recording and not record
        self._recording = record
        self._recorded = self._recorded or record
        marked = record or lead or trail or (self._residual and self._recorded)
        return Verdict(record, lead, marked)

    def pause(self) -> None:
        """The window that was open has been closed: no unit trails it."""
        self._recording = False

    def _count(self, key: UnitKey) -> None:
        """Micro-batches of one step count once."""
        step = (key.repeat, key.batch, key.step)
        if step != self._current:
            self._current = step
            self._decoded += 1

    def _records(self, key: UnitKey) -> bool:
        if self._options.steps:
            return key.step in self._options.steps
        return key.phase != "prefill" and self._options.holds(self._decoded)

    def _leads(self, key: UnitKey) -> bool:
        if self._options.steps:
            return key.step is not None and key.step + 1 in self._options.steps
        return self._options.holds(self._decoded + 1)
