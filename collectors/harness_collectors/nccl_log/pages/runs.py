"""Lines that differ in their channel only, together: a rank prints one a channel.

Lines of several processes may lie between each other: what counts is a process's own order. A
stretch of like lines ends where their process prints something else that is kept, or anybody
makes a call. Within it order matters only where two lines say different things of one channel.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from harness_collectors.nccl_log.grammar.lines import Hop, Record
from harness_collectors.nccl_log.grammar.words import Sort
from harness_collectors.nccl_log.pages.block import Block

if TYPE_CHECKING:
    import numpy as np


Run = tuple[int, int, int, int, int, int]
"""Lines of one thread that say the same of several channels: the code of the piece of the block
that says who printed them; the number of what they say; the place of the first; how many they are;
channels 0 to 63, and 64 and above, as bits."""


class Likes(NamedTuple):
    """Lines of sort LIKE."""

    places: np.ndarray
    said: np.ndarray
    """The number of what each says."""
    values: list[Hop | str]
    """By that number: a transport, or the ranks of a ring."""


def runs_of(
    block: Block,
    sorts: np.ndarray,
    likes: Likes,
    heads: dict[int, Record | None],
    firsts: np.ndarray,
) -> dict[int, list[Run]]:
    """Runs by the place at which they may be read: nothing before it or behind changes them.

    `firsts` are the first lines of files.
    """
    import numpy as np

    said = np.zeros(len(block), np.int64)
    said[likes.places] = likes.said
    places, stretches = _stretches(block, sorts, heads, firsts)
    who, what = block.heads[places].astype(np.int64), said[places]
    label = (stretches * (2 * len(block.pieces)) + who) * len(likes.values) + what
    if block.times is not None:
        label = label * 2 + (block.times[places] >= 0)
    runs = _runs(block, places, stretches, what, label)
    if len(torn := _contradictory(runs, likes.values)):
        in_order = np.isin(stretches, torn)
        label[in_order] = label.max() + 1 + np.cumsum(_changes(label))[in_order]
        runs = _runs(block, places, stretches, what, label)
    return _by_stretch(runs)


def _stretches(
    block: Block, sorts: np.ndarray, heads: dict[int, Record | None], firsts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Places of like lines, each process's together and in order, and numbers of stretches."""
    import numpy as np

    is_like = sorts == Sort.LIKE
    pids, owners = _numbered_owners(block, heads)
    is_own = block.heads >= 0
    is_own[is_own] = pids[block.heads[is_own]] >= 0
    is_cut = (sorts == Sort.LINE) | (sorts == Sort.TURN)
    is_barrier = (sorts == Sort.CALL) | (sorts == Sort.SEVERAL) | (is_cut & ~is_own)
    is_barrier[firsts] = True
    epochs = np.cumsum(is_barrier)
    places = np.flatnonzero(is_like | (is_cut & is_own))
    places = places[np.argsort(pids[block.heads[places]], kind="stable")]
    cuts = np.cumsum(~is_like[places])
    cuts, places = cuts[is_like[places]], places[is_like[places]]
    order = np.argsort(owners[block.heads[places]], kind="stable")
    cuts, places = cuts[order], places[order]
    is_new = _changes(owners[block.heads[places]]) | _changes(cuts) | _changes(epochs[places])
    return places, np.cumsum(is_new)


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

    seen: tuple[dict[object, int], dict[object, int]] = ({}, {})
    codes, numbers = [], []
    for code, record in heads.items():
        if record is not None:
            host, pid = record[:2]
            codes.append(code)
            numbers.append(seen[0].setdefault(pid, len(seen[0])))
            numbers.append(seen[1].setdefault((host, pid), len(seen[1])))
    found = np.full((2 * len(block.pieces), 2), -1, np.int32)
    found[codes] = np.array(numbers, np.int32).reshape(-1, 2)
    return found[:, 0], found[:, 1]


class _Runs(NamedTuple):
    """Columns of runs, in the order of stretches, in a stretch of their first lines."""

    head: np.ndarray
    like: np.ndarray
    place: np.ndarray
    times: np.ndarray
    low: np.ndarray
    high: np.ndarray
    stretch: np.ndarray


def _runs(
    block: Block, places: np.ndarray, stretches: np.ndarray, said: np.ndarray, label: np.ndarray
) -> _Runs:
    """Put together the lines of one label."""
    import numpy as np

    order = np.argsort(label, kind="stable")
    starts = np.flatnonzero(_changes(label[order]))
    firsts = order[starts]
    numbers = block.numbers[places[order]].astype(np.uint64)
    numbers %= np.uint64(100)  # of rings too
    bits = np.uint64(1) << (numbers & np.uint64(63))
    is_low = numbers < 64
    low, high = (
        np.bitwise_or.reduceat(np.where(wanted, bits, np.uint64(0)), starts)
        for wanted in (is_low, ~is_low)
    )
    times = np.diff(np.append(starts, len(places)))
    at = places[firsts]
    columns = (block.heads[at], said[firsts], at, times, low, high, stretches[firsts])
    by_place = np.lexsort((at, stretches[firsts]))
    return _Runs(*(column[by_place] for column in columns))


def _contradictory(runs: _Runs, values: Sequence[Hop | str]) -> np.ndarray:
    """Stretches in which two runs say different things of one channel between two ranks."""
    import numpy as np

    ends: dict[object, int] = {}
    numbers = [ends.setdefault(v.edge[0] if isinstance(v, Hop) else v, len(ends)) for v in values]
    between = np.array(numbers)[runs.like]
    order = np.lexsort((between, runs.stretch))
    stretch, between = runs.stretch[order], between[order]
    starts = np.flatnonzero(_changes(stretch) | _changes(between))
    half = np.uint64(0xFFFFFFFF)
    is_twice = np.zeros(len(starts), bool)
    for bits in (runs.low, runs.high):
        for part in (bits[order] & half, bits[order] >> np.uint64(32)):
            is_twice |= np.add.reduceat(part, starts) != np.bitwise_or.reduceat(part, starts)
    found: np.ndarray = np.unique(stretch[starts[is_twice]])
    return found


def _by_stretch(runs: _Runs) -> dict[int, list[Run]]:
    import numpy as np

    head, like, place, times, low, high, _ = (column.tolist() for column in runs)
    listed = list(zip(head, like, place, times, low, high, strict=True))
    starts = [*np.flatnonzero(_changes(runs.stretch)).tolist(), len(listed)]
    return {place[start]: listed[start:end] for start, end in itertools.pairwise(starts)}
