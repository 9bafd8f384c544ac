"""Operators inside other operators of their thread: they are left out."""

from __future__ import annotations

import numpy as np

from harness_collectors.kineto.events import LIMIT
from harness_collectors.kineto.kinds import OP
from harness_collectors.traces.table import Table, places_of


class Nesting:
    """Finds operators inside other operators of their thread, chunk by chunk.

    That is enough where a file lists each operator before those inside it, as all but the oldest
    do; `unordered` says that this one does not.
    """

    def __init__(self) -> None:
        self.unordered = False
        self._last: dict[int, tuple[int, int]] = {}

    def keep(
        self, kind: np.ndarray, start: np.ndarray, dur: np.ndarray, thread: np.ndarray
    ) -> np.ndarray:
        """Which rows are no operator inside another one (boolean)."""
        result = np.ones(len(kind), np.bool_)
        ops = np.flatnonzero(kind == OP)
        for owner, places in places_of(thread[ops]):
            mine = ops[places]
            result[mine] = ~self._inside(owner, start[mine], dur[mine])
        return result

    def _inside(self, owner: int, start: np.ndarray, dur: np.ndarray) -> np.ndarray | bool:
        if len(start) == 1:
            return self._is_one_inside(owner, int(start[0]), int(start[0]) + max(int(dur[0]), 0))
        end = start + np.maximum(dur, 0)
        first, last = self._last.get(owner, (-LIMIT, -LIMIT))
        step = np.diff(start)
        ordered = not (step < 0).any() and not ((step == 0) & (np.diff(end) > 0)).any()
        self.unordered |= not ordered or bool(start[0] < first)
        inside = _reached(end) if ordered else _is_inside(start, end)
        inside |= (start >= first) & (end <= last)
        longest = int(end.argmax())
        if end[longest] > last:
            self._last[owner] = (int(start[longest]), int(end[longest]))
        return inside

    def _is_one_inside(self, owner: int, start: int, end: int) -> bool:
        """The same for one operator: a million threads may have one each."""
        first, last = self._last.get(owner, (-LIMIT, -LIMIT))
        self.unordered |= start < first
        if end > last:
            self._last[owner] = (start, end)
        return start >= first and end <= last


def _is_inside(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Which intervals lie in another one (boolean); of equal ones all but the first."""
    order = np.lexsort((-end, start))
    result = np.empty(len(start), np.bool_)
    result[order] = _reached(end[order])
    return result


def _reached(end: np.ndarray) -> np.ndarray:
    """The same for intervals in the order of their starts: what ends before the latest end of
    those that began earlier lies inside one of them."""
    result = np.zeros(len(end), np.bool_)
    result[1:] = end[1:] <= np.maximum.accumulate(end)[:-1]
    return result


def nested_rows(host: Table) -> np.ndarray:
    """Rows of operators inside other operators, whatever the file's order."""
    ops = np.flatnonzero(host["kind"] == OP)
    parts = []
    for _, places in places_of(host["thread"][ops]):
        mine = ops[places]
        start = host.at("start", mine)
        parts.append(mine[_is_inside(start, start + np.maximum(host.at("dur", mine), 0))])
    return np.concatenate(parts) if parts else ops
