"""Runs of lines that differ in their channel only: a rank prints one a channel, one after another.

Lines of several processes may lie between each other: what counts is a process's own order. A
run ends where its process prints something else that is kept, or anybody makes a call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from harness_collectors.nccl_log.block import Block
from harness_collectors.nccl_log.lines import Record
from harness_collectors.nccl_log.sorting import Sort

if TYPE_CHECKING:
    import numpy as np


class Run(NamedTuple):
    """Lines of one thread that say the same of several channels."""

    head: int
    """Code of the piece of the block that says who printed it."""
    like: int
    """What it says, by the number that the caller gave it."""
    place: int
    """Of its first line."""
    times: int
    low: int
    high: int
    """Channels 0 to 63, and 64 and above, as bits."""

    @property
    def channels(self) -> int:
        """All channels as bits."""
        return self.low | self.high << 64


def runs_of(
    block: Block, sorts: np.ndarray, likes: np.ndarray, heads: dict[int, Record | None]
) -> dict[int, list[Run]]:
    """Runs by the place at which they may be read: nothing before it or behind changes them.

    `likes` has a number for what each line of sort LIKE says.
    """
    import numpy as np

    is_like = sorts == Sort.LIKE
    said = np.zeros(len(block), np.int32)
    said[is_like] = likes
    pids, owners = _numbered_owners(block, heads)
    is_own = block.heads >= 0
    is_own[is_own] = pids[block.heads[is_own]] >= 0
    is_cut = (sorts == Sort.LINE) | (sorts == Sort.TURN)
    is_barrier = (sorts == Sort.CALL) | (sorts == Sort.SEVERAL) | (is_cut & ~is_own)
    epochs = np.cumsum(is_barrier)
    places = np.flatnonzero(is_like | (is_cut & is_own))
    places = places[np.argsort(pids[block.heads[places]], kind="stable")]
    cuts = np.cumsum(~is_like[places])
    cuts, places = cuts[is_like[places]], places[is_like[places]]
    order = np.argsort(owners[block.heads[places]], kind="stable")
    cuts, places = cuts[order], places[order]
    at = block.heads[places]
    sliced = _changes(owners[at]) | _changes(cuts) | _changes(epochs[places])
    ran = sliced | _changes(at) | _changes(said[places])
    if block.times is not None:
        ran |= _changes(block.times[places] >= 0)
    return _by_place(_runs(block, said, places, np.flatnonzero(ran)), sliced[ran].tolist())


def _changes(values: np.ndarray) -> np.ndarray:
    import numpy as np

    changed = np.ones(len(values), bool)
    changed[1:] = values[1:] != values[:-1]
    return changed


def _numbered_owners(
    block: Block, heads: dict[int, Record | None]
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of pids and of (host, pid) by code of a head; -1: not simply a prefix."""
    import numpy as np

    pids, owners = (np.full(len(block.pieces), -1, np.int32) for _ in range(2))
    seen: tuple[dict[object, int], dict[object, int]] = ({}, {})
    for code, record in heads.items():
        if record is not None:
            pids[code] = seen[0].setdefault(record.pid, len(seen[0]))
            owners[code] = seen[1].setdefault((record.host, record.pid), len(seen[1]))
    return pids, owners


def _runs(block: Block, said: np.ndarray, places: np.ndarray, starts: np.ndarray) -> list[Run]:
    import numpy as np

    numbers = block.numbers[places].astype(np.uint64)
    bits = np.uint64(1) << (numbers & np.uint64(63))
    is_low = numbers < 64
    low, high = (
        np.bitwise_or.reduceat(np.where(wanted, bits, np.uint64(0)), starts)
        for wanted in (is_low, ~is_low)
    )
    firsts = places[starts]
    times = np.diff(np.append(starts, len(places)))
    columns = (block.heads[firsts], said[firsts], firsts, times, low, high)
    return list(map(Run, *(column.tolist() for column in columns)))


def _by_place(runs: list[Run], is_first: list[bool]) -> dict[int, list[Run]]:
    found: dict[int, list[Run]] = {}
    for run, first in zip(runs, is_first, strict=True):
        if first:
            current = found[run.place] = []
        current.append(run)
    return found


def repeats(block: Block, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first places of distinct lines, and how often each is there."""
    import numpy as np

    pairs = block.heads[places].astype(np.int64) * len(block.pieces) + block.texts[places]
    _, first, times = np.unique(pairs, return_index=True, return_counts=True)
    return places[first], times
