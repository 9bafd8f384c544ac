"""Recordings that began at different moments: number their collectives alike, and say it.

A profiler counts a group's collectives from the moment it is opened. Where it was opened later
on one rank, the k-th of that rank is a later call than the k-th of the others, and comparing
them would make up waits. The kernels of one call end together on all its ranks, whatever their
clocks say, so the intervals between successive ends agree to microseconds at the right shift of
the ordinals, and only there (docs/clocks.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from harness_analysis.build.same_calls import Ints
from harness_schemas.units import EARLIEST_WALL_NS

if TYPE_CHECKING:
    import duckdb

EQUAL_NS = 3_000
AGREE_NS = 20_000
"""Half of the intervals between ends of the ranks differ by less: certainly, or if no other
shift does better."""
CLEARLY = 4
"""The right shift's disagreement is so many times smaller than any other's."""
LOOKED_AT = 1 << 16
"""Calls of a stream and rank, from the first on: no recording begins later than these."""
COMPARED = 512
"""Intervals that a shift is judged by."""
GLANCES, TRIED = (16, 6), 64
"""Intervals that all shifts are compared by, and how many of the best are judged. Fewer where
recordings share only their ends."""
FEWEST = 4
ENOUGH = 8
"""Common calls that tell a shift, where there are more on either side."""
HOPELESS_NS = 1_000_000
"""Kernels of one call do not end so far apart: the ordinals compare different calls."""
FAR_NS = 600 * 1_000_000_000
"""Wall clocks of hosts are not so far apart: such recordings are of two jobs."""
APART = "the recordings of the ranks began at different moments"


@dataclass(frozen=True)
class Recorded:
    """The calls of one stream on one rank, in their order."""

    rank: int
    seq: Ints
    kind: Ints
    end_ns: Ints
    unit: Ints
    """Number of the unit of work; 0: unknown."""


Shift = tuple[str, str, int, int | None]
"""Source, stream, rank, what is added to its ordinals; None: its ends fit those of no shift."""


def align_ordinals(con: duckdb.DuckDBPyConnection) -> None:
    """Shift `seq` in temp table collective_parts where ranks' recordings do not begin together.

    Where the ends of two ranks fit at no shift, the stream stays unsplit, with the reason. Looks
    only at kernels of operations that end together. Linear in the calls, and bounded a stream.
    """
    found = con.execute(
        f"""
        SELECT source, stream, rank, list(seq ORDER BY seq), list(kind ORDER BY seq),
          list(end_ns ORDER BY seq), list(unit ORDER BY seq)
        FROM (
          SELECT *, {STREAM} AS stream, (hash(op, bytes) % 9223372036854775807)::BIGINT AS kind,
            CASE WHEN phase IS NULL THEN 0
              ELSE (hash(batch, microbatch, repeat, phase, step) % 9223372036854775807)::BIGINT
            END AS unit
          FROM collective_parts
          WHERE source IN ('torch_profiler', 'nsys') AND timeline = 'device'
            AND (op IN ('send', 'recv') OR op IN (FROM synchronising))
            AND seq IS NOT NULL AND end_ns IS NOT NULL AND coalesce(group_size, 2) > 1
            AND stream IS NOT NULL
          QUALIFY row_number() OVER (PARTITION BY source, stream, rank ORDER BY seq) <= {LOOKED_AT})
        GROUP BY source, stream, rank ORDER BY source, stream, rank
        """
    ).fetchall()
    streams: dict[tuple[str, str], list[Recorded]] = {}
    for source, stream, rank, *columns in found:
        seq, kind, end, unit = (np.array(column, np.int64) for column in columns)
        kind = kind if ">" not in stream else np.zeros_like(kind)
        streams.setdefault((source, stream), []).append(Recorded(rank, seq, kind, end, unit))
    shifts = [
        (*key, rank, shift) for key, members in streams.items() for rank, shift in _shifts(members)
    ]
    if shifts:
        _apply(con, shifts)


STREAM = """CASE WHEN op IN ('send', 'recv') THEN src_rank || '>' || dst_rank
  ELSE comm_group END"""


def _shifts(members: list[Recorded]) -> Iterator[tuple[int, int | None]]:
    """The shifts of a stream's ranks other than 0; none of them makes an ordinal negative."""
    # The one with the most calls: the others begin or end within it.
    reference = max(members, key=lambda one: len(one.seq))
    shifts = {one.rank: shift_between(reference, one) for one in members if one is not reference}
    shifts[reference.rank] = 0
    lowest = min(one.seq[0] + (shifts[one.rank] or 0) for one in members)
    for rank, shift in shifts.items():
        moved = shift if shift is None else int(shift - min(lowest, 0))
        if moved != 0:
            yield rank, moved


def shift_between(reference: Recorded, one: Recorded) -> int | None:
    """What to add to `one`'s ordinals so that they are `reference`'s; None: nothing fits.

    0 where too little is there to tell.
    """
    if _lie_apart(reference, one):
        return None
    _, at, there = np.intersect1d(reference.seq, one.seq, return_indices=True)
    now = _disagreement(reference, one, at[:COMPARED], there[:COMPARED])
    by_units = _first_common_unit(reference, one)
    if by_units is not None:
        score = _at(reference, one, by_units)
        if score is not None and score <= AGREE_NS:
            return _as_ordinal(reference, one, by_units)
    elif now is not None and now <= EQUAL_NS:
        return 0
    if len(one.seq) <= FEWEST:
        return 0
    scores: dict[int, float] = {}
    likely = _likely(reference, one) | {-places for places in _likely(one, reference)}
    for places in sorted(likely):
        score = _at(reference, one, places, least=ENOUGH)
        if score is not None:
            scores[places] = score
    ordered = sorted(scores, key=lambda places: scores[places])
    if not ordered or scores[ordered[0]] > AGREE_NS:
        return None if now is not None and _hopeless(reference, one, now, at, there) else 0
    best, second = scores[ordered[0]], [scores[places] for places in ordered[1:2]]
    found = _as_ordinal(reference, one, ordered[0])
    if found and second and second[0] < CLEARLY * max(best, 1_000):
        return None
    return found


def _hopeless(reference: Recorded, one: Recorded, now: float, at: Ints, there: Ints) -> bool:
    """Whether the ordinals as they are compare different calls: their ends differ by too much, or
    lie apart, by the wall clock, by more than the next call does."""
    if now > HOPELESS_NS:
        return True
    first, second = reference.end_ns[at], one.end_ns[there]
    if min(first.min(), second.min()) < EARLIEST_WALL_NS:
        return False
    return bool(np.median(np.abs(first - second)) > np.median(np.diff(reference.end_ns)))


def _lie_apart(reference: Recorded, one: Recorded) -> bool:
    """Whether one recording had long ended when the other began."""
    if not len(reference.end_ns) or not len(one.end_ns):
        return False
    begin = max(int(reference.end_ns.min()), int(one.end_ns.min()))
    first_end = min(int(reference.end_ns.max()), int(one.end_ns.max()))
    return first_end > EARLIEST_WALL_NS and begin - first_end > FAR_NS


def _likely(longer: Recorded, other: Recorded) -> set[int]:
    """Where in `longer` the intervals are most like the first of `other`."""
    intervals = np.diff(longer.end_ns)
    found: set[int] = set()
    for glance in GLANCES:
        first = np.diff(other.end_ns[: glance + 1])
        if not 0 < len(first) <= len(intervals):
            continue
        windows = np.lib.stride_tricks.sliding_window_view(intervals, len(first))
        scores = np.median(np.abs(windows - first), axis=1)
        tried = min(TRIED, len(scores))
        found |= {int(place) for place in np.argpartition(scores, tried - 1)[:tried]}
    return found


def _first_common_unit(reference: Recorded, one: Recorded) -> int | None:
    """The shift in places that brings the calls of the first common unit together."""
    if not (reference.unit.all() and one.unit.all()):
        return None
    common = np.isin(one.unit, reference.unit)
    if not common.any():
        return None
    mine = int(np.argmax(common))
    return int(np.argmax(reference.unit == one.unit[mine])) - mine


def _as_ordinal(reference: Recorded, one: Recorded, places: int) -> int:
    begin = max(0, -places)
    return int(reference.seq[begin + places] - one.seq[begin])


def _at(reference: Recorded, one: Recorded, places: int, least: int = 0) -> float | None:
    """Disagreement at a shift in places; None: fewer than `least` calls are common, though both
    have as many."""
    begin = max(0, -places)
    length = min(len(one.seq) - begin, len(reference.seq) - begin - places, COMPARED)
    if length < min(least, len(one.seq), len(reference.seq)):
        return None
    mine = np.arange(begin, begin + max(length, 0))
    return _disagreement(reference, one, mine + places, mine)


def _disagreement(reference: Recorded, one: Recorded, at: Ints, there: Ints) -> float | None:
    """Median difference of the intervals between successive ends, in nanoseconds.

    None: too few calls, or the operations or sizes differ.
    """
    if len(at) <= FEWEST or not np.array_equal(reference.kind[at], one.kind[there]):
        return None
    apart = np.diff(reference.end_ns[at]) - np.diff(one.end_ns[there])
    return float(np.median(np.abs(apart)))


def _apply(con: duckdb.DuckDBPyConnection, shifts: list[Shift]) -> None:
    names = ("source", "stream", "rank", "shift")
    columns = dict(zip(names, zip(*shifts, strict=True), strict=True))
    found = pa.table({**columns, "shift": pa.array(columns["shift"], pa.int64())})  # noqa: F841
    con.execute(
        f"""
        UPDATE collective_parts SET seq = collective_parts.seq + f.shift,
          unsplit_reason = CASE WHEN f.shift IS NULL THEN '{APART}' ELSE unsplit_reason END
        FROM found f
        WHERE collective_parts.source = f.source AND collective_parts.rank = f.rank
          AND {STREAM} = f.stream AND collective_parts.seq IS NOT NULL
          AND collective_parts.timeline = 'device'
        """
    )
