"""Units of work out of host annotations, and what belongs to them by the moment of its launch."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from harness_collectors.names.step_marks import Mark, StepMarks
from harness_collectors.traces.table import Table, places_of

_FOREVER: Final = 2**63 - 1


@dataclass(frozen=True)
class Unit:
    """A unit of work: its key, and the host interval of its annotation. `end` None: unknown."""

    mark: Mark
    name: str
    thread: int
    start: int
    end: int | None
    step: int | None
    batch: int | None

    @property
    def last(self) -> int:
        """The end for comparisons: an annotation that never ended lasts."""
        return _FOREVER if self.end is None else self.end

    def same_key(self, mark: Mark) -> bool:
        """Whether an annotation says the same key of work."""
        mine = self.mark
        return (mine.phase, mine.step, mine.batch, mine.microbatch, mine.repeat) == (
            mark.phase,
            mark.step,
            mark.batch,
            mark.microbatch,
            mark.repeat,
        )


@dataclass(frozen=True)
class FoundUnits:
    """Units in the order of time, and the host rows (ascending) that their annotations are.

    `phases`: rows of marks that made no unit, with their rule, ascending.
    """

    units: list[Unit]
    rows: list[int]
    phases: list[tuple[int, str]]

    def phases_within(self, first: int, last: int) -> list[tuple[int, str]]:
        """Those of rows `first` to `last`, both included."""
        low = bisect_left(self.phases, (first, ""))
        return self.phases[low : bisect_left(self.phases, (last + 1, ""))]


@dataclass
class UnitNumbers:
    """What numbering units goes on with in a rank's next file."""

    ordinal: int = 0
    sequence: int = 0
    seen: set[tuple[str | None, int | None, int | None]] = field(default_factory=set)


def find_units(
    host: Table,
    rows: np.ndarray,
    names: Sequence[str],
    marks: StepMarks,
    numbers: UnitNumbers,
) -> FoundUnits:
    """Collapse those of the host's `rows` that mark steps into units.

    Only the best family of marks counts (`ProfilerStep#N` around `decode_step_N` is no unit).
    Several annotations of one numbered step are one unit; one inside another is part of it.
    """
    start, dur = host.at("start", rows), host.at("dur", rows)
    # Longest first where several begin together: the outer one must be met before the inner.
    order = np.lexsort((-dur, start))
    known = {code: marks.find(names[code]) for code in np.unique(host["name"][rows]).tolist()}
    family = marks.best_family(known.values())
    units: list[Unit] = []
    used: list[int] = []
    phases: list[tuple[int, str]] = []
    for row in rows[order].tolist():
        mark = known[int(host["name"][row])]
        if mark is None:
            continue
        begin, length = int(host["start"][row]), int(host["dur"][row])
        end = None if length < 0 else begin + length
        name, thread = names[int(host["name"][row])], int(host["thread"][row])
        candidate = Unit(mark, name, thread, begin, end, mark.step, mark.batch)
        if not mark.counts_in(family) or not _place(units, candidate):
            phases.append((row, mark.rule))
        else:
            used.append(row)
    return FoundUnits(_numbered(units, numbers), sorted(used), sorted(phases))


def _place(units: list[Unit], candidate: Unit) -> bool:
    """Add an annotation to the last unit or after it; False: it is nested in another step."""
    last = units[-1] if units else None
    if last is None or candidate.start >= last.last:
        if last is not None and candidate.mark.numbered and last.same_key(candidate.mark):
            units[-1] = _joined(last, candidate)
        else:
            units.append(candidate)
        return True
    within = candidate.last <= last.last
    if last.same_key(candidate.mark) and (candidate.mark.numbered or within):
        units[-1] = _joined(last, candidate)
        return True
    if within and candidate.thread == last.thread:
        return False
    units.append(candidate)
    return True


def _joined(first: Unit, second: Unit) -> Unit:
    end = None if first.end is None or second.end is None else max(first.end, second.end)
    return replace(first, end=end)


def _numbered(units: list[Unit], numbers: UnitNumbers) -> list[Unit]:
    """Number steps that have no number, and batches where the same steps come again."""
    own_batches = any(unit.batch is not None or unit.mark.repeat is not None for unit in units)
    result = []
    for unit in units:
        if unit.step is None:
            unit = replace(unit, step=numbers.ordinal)
            numbers.ordinal += 1
        elif not unit.mark.numbered:  # its rule's own number: others are counted on from it
            numbers.ordinal = unit.step + 1
        key = (unit.mark.phase, unit.step, unit.mark.microbatch)
        if key in numbers.seen:
            numbers.sequence += 1
            numbers.seen.clear()
        numbers.seen.add(key)
        result.append(unit if own_batches else replace(unit, batch=numbers.sequence))
    if numbers.sequence == 0 and not own_batches:
        return [replace(unit, batch=None) for unit in result]
    return result


class Intervals:
    """Host intervals of threads; answers which of them holds a moment."""

    def __init__(self, start: Iterable[int], end: Iterable[int], thread: Iterable[int]) -> None:
        begin = np.fromiter(start, np.int64)
        self._order = np.argsort(begin, kind="stable")
        self._start = begin[self._order]
        self._end = np.fromiter(end, np.int64)[self._order]
        self._members = dict(places_of(np.fromiter(thread, np.int64)[self._order]))
        self._all = np.arange(len(self._start))

    def locate(self, times: np.ndarray, threads: np.ndarray, any_thread: bool = True) -> np.ndarray:
        """Index of the interval, given in the constructor's order, that holds each moment; -1.

        One on the moment's own thread is preferred. With `any_thread` one of another thread of
        the process will do: autograd and engine threads launch work of an annotated step.
        """
        if any_thread and len(self._members) == 1:
            return self._within(self._all, times)
        found = np.full(len(times), -1, np.int64)
        for owner, mine in places_of(threads):
            if owner in self._members:
                found[mine] = self._within(self._members[owner], times[mine])
        if any_thread:
            rest = np.flatnonzero(found < 0)
            found[rest] = self._within(self._all, times[rest])
        return found

    def _within(self, members: np.ndarray, times: np.ndarray) -> np.ndarray:
        start, end = self._start[members], self._end[members]
        if not len(start):
            return np.full(len(times), -1, np.int64)
        place = np.searchsorted(start, times, side="right") - 1
        held = (place >= 0) & (times <= end[place])
        return np.where(held, self._order[members[place]], -1)


def unit_intervals(units: Sequence[Unit]) -> Intervals:
    """The units' host intervals."""
    return Intervals(
        (unit.start for unit in units),
        (unit.last for unit in units),
        (unit.thread for unit in units),
    )
