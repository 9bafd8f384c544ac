"""Clocks checked by the ends of collectives: kernels of one call end together on all its ranks.

On one host they agree to 0.2 to 0.6 us (H200s, NVLink). So where two ranks' clocks are tied by
their wall clocks only, the median difference of matched ends is the offset between them, and its
spread says how finely they may be compared. Quartz drifts by some ppm, tens of microseconds in a
minute: where the difference clearly grows, a line is laid through it. Small differences are left
as they are and reported as residual; one that is clear is taken out (docs/clocks.md). Raw times
stay.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from harness_analysis.clocks.axis import aligned

if TYPE_CHECKING:
    import duckdb

SAMPLED = 2000
"""Calls of a stream that are compared, evenly spread."""
FEWEST = 8
MATERIAL_NS = 10_000
"""A difference below is no error worth moving times for: it is reported as residual."""
CLEARLY = 4
"""An offset, or what a drift amounts to, is so many times the spread of the differences."""
FAR_NS = 10 * 1_000_000_000
"""Wall clocks of hosts that anybody keeps are closer than this."""
TIED_NS = 100_000
"""Clocks that far apart are believed only where ends agree so well: it may be another job's."""
DRIFT_POINTS = 10
"""Medians of so many parts of the recording that a drift is fitted to."""
FEWEST_A_POINT = 5
CHECKED = "collective_ends"


@dataclass(frozen=True)
class Ends:
    """A rank's clock against the lowest rank's: what is to be added, and how surely."""

    source: str
    rank: int
    offset_ns: int
    spread_ns: int
    """Nine in ten differences lie within it of the median, or of the line."""
    calls: int
    drift_ppb: int = 0
    ref_ns: int = 0
    """Time on the axis at which the offset holds exactly."""

    @property
    def moves(self) -> bool:
        """Whether the difference is an offset that is to be taken out."""
        if abs(self.offset_ns) > FAR_NS and self.spread_ns > TIED_NS:
            return False
        clear = abs(self.offset_ns) > max(MATERIAL_NS, CLEARLY * self.spread_ns)
        return clear or self.drift_ppb != 0

    @property
    def residual_ns(self) -> int:
        """How finely the clocks may be compared afterwards."""
        return self.spread_ns + (0 if self.moves else abs(self.offset_ns))


def check_clocks(con: duckdb.DuckDBPyConnection, in_files: bool) -> None:
    """Give clocks without a residual one by their kernels' ends, and take out clear offsets.

    Changes run.clock_offsets and, where offsets are clear, the times of run.spans and temp table
    collective_parts. Ranks that share a clock are moved together, if their ends agree on it.
    Clocks that several sources share are only checked; so are all where spans are kept `in_files`.
    """
    found = {(ends.source, ends.rank): ends for ends in measure_ends(con)}
    own: set[tuple[str, int]] = set()
    for source, ranks in _movable(con):
        places = [(source, rank) for rank in ranks]
        common = _common([found[place] for place in places if place in found])
        if common is not None:
            own.update(places)
            found.update({(source, rank): replace(common, rank=rank) for rank in ranks})
    for ends in found.values():
        shift = ends.moves and not in_files and (ends.source, ends.rank) in own
        if shift:
            _shift(con, ends)
        residual = ends.residual_ns if shift else ends.spread_ns + abs(ends.offset_ns)
        con.execute(
            f"""
            UPDATE run.clock_offsets SET residual_ns = ?, samples = ?,
              ref_ns = CASE WHEN ? <> 0 THEN ? - coalesce(offset_ns, 0) ELSE ref_ns END,
              offset_ns = coalesce(offset_ns, 0) + ?, drift_ppb = coalesce(drift_ppb, 0) + ?,
              method = CASE WHEN ? THEN '{CHECKED}' ELSE method || '+{CHECKED}' END
            WHERE source = ? AND rank = ? AND timeline IS DISTINCT FROM 'host'
              AND residual_ns IS NULL
            """,
            [
                *(residual, ends.calls, ends.drift_ppb if shift else 0, ends.ref_ns),
                *((ends.offset_ns, ends.drift_ppb) if shift else (0, 0)),
                *(shift, ends.source, ends.rank),
            ],
        )


def _movable(con: duckdb.DuckDBPyConnection) -> list[tuple[str, list[int]]]:
    """Clocks that only the wall's tie and that one source alone is on, as its source and ranks."""
    return con.execute(
        """
        SELECT any_value(source), list(DISTINCT rank ORDER BY rank) FROM run.clock_offsets
        GROUP BY clock_domain
        HAVING count(DISTINCT source) = 1 AND count(rank) = count(*)
          AND bool_and(timeline IS NULL AND method IN ('wall_clock', 'none'))
        ORDER BY ALL
        """
    ).fetchall()


def _common(members: list[Ends]) -> Ends | None:
    """One clock's ends by those of the ranks on it; None: they were not measured, or disagree."""
    if not members:
        return None
    best = min(members, key=lambda ends: (ends.spread_ns, ends.rank))
    apart = max(
        abs(one.offset_ns - best.offset_ns - best.drift_ppb * (one.ref_ns - best.ref_ns) // 10**9)
        for one in members
    )
    spread = max(one.spread_ns for one in members)
    if apart > max(MATERIAL_NS, CLEARLY * spread):
        return None
    return replace(best, spread_ns=spread + apart)


def measure_ends(con: duckdb.DuckDBPyConnection) -> list[Ends]:
    """Every rank's kernels' ends against those of the lowest rank that it can be tied to."""
    rows = con.execute(
        f"""
        WITH calls AS (
          SELECT source, rank, end_ns, seq,
            CASE WHEN op IN ('send', 'recv') THEN src_rank || '>' || dst_rank
                 WHEN op IN (FROM synchronising) THEN comm_group END AS stream
          FROM collective_parts
          WHERE source IN ('torch_profiler', 'nsys') AND timeline = 'device'
            AND seq IS NOT NULL AND end_ns IS NOT NULL AND rank IS NOT NULL
        ), firsts AS (
          SELECT source, stream, min(rank) AS first, 1 + (max(seq) - min(seq)) // {SAMPLED} AS every
          FROM calls WHERE stream IS NOT NULL GROUP BY ALL
        ), apart AS (
          SELECT source, a.rank AS first, b.rank, b.end_ns, (a.end_ns - b.end_ns) AS ns
          FROM firsts f
          JOIN calls a USING (source, stream) JOIN calls b USING (source, stream)
          WHERE a.rank = f.first AND b.rank > f.first AND a.seq = b.seq AND a.seq % f.every = 0
        )
        SELECT source, first, rank, list(end_ns ORDER BY end_ns), list(ns ORDER BY end_ns)
        FROM apart GROUP BY ALL HAVING count(*) >= {FEWEST} ORDER BY source, first, rank
        """
    ).fetchall()
    found: dict[tuple[str, int], Ends] = {}
    for source, first, rank, at, apart in rows:
        if not any(source == known for known, _ in found):
            found[source, first] = Ends(source, first, 0, 0, 0)
        base = found.get((source, first))
        if base is None:
            continue  # nothing ties it to the lowest rank
        # Ties come in the order of ranks: what `first` itself is off by is known by now.
        candidate = _behind(base, fit(source, rank, np.array(at), np.array(apart)))
        best = found.get((source, rank))
        if best is None or (candidate.spread_ns, first) < (best.spread_ns, first):
            found[source, rank] = candidate
    return [ends for ends in found.values() if ends.calls]


def fit(source: str, rank: int, at_ns: np.ndarray, apart_ns: np.ndarray) -> Ends:
    """A rank's clock against another's by differences `apart_ns` at the times `at_ns`, ascending.

    The median; or where differences clearly grow, a line through the medians of parts of the
    recording. Both arrays of shape [calls], integers.
    """
    middle = float(np.median(apart_ns))
    flat = Ends(source, rank, round(middle), _spread(apart_ns - middle), len(at_ns))
    if len(at_ns) < DRIFT_POINTS * FEWEST_A_POINT:
        return flat
    ref = int(at_ns[len(at_ns) // 2])
    since = (at_ns - ref).astype(float)
    parts = np.array_split(np.arange(len(at_ns)), DRIFT_POINTS)
    slope, offset = np.polyfit(
        [np.median(since[part]) for part in parts], [np.median(apart_ns[part]) for part in parts], 1
    )
    spread = _spread(apart_ns - (offset + slope * since))
    amounts_to = abs(slope) * float(since[-1] - since[0])
    if amounts_to <= max(MATERIAL_NS, CLEARLY * spread):
        return flat
    return Ends(source, rank, round(offset), spread, len(at_ns), round(slope * 1e9), ref)


def _spread(differences: np.ndarray) -> int:
    return int(np.ceil(np.quantile(np.abs(differences), 0.9)))


def _behind(base: Ends, ends: Ends) -> Ends:
    """`ends`, measured against the rank of `base`, against the lowest rank's clock."""
    drift = base.drift_ppb + ends.drift_ppb
    ref = ends.ref_ns or base.ref_ns
    moved = base.drift_ppb * (ref - base.ref_ns) // 1_000_000_000 if base.drift_ppb else 0
    return Ends(
        *(ends.source, ends.rank, base.offset_ns + ends.offset_ns + moved),
        *(base.spread_ns + ends.spread_ns, ends.calls, drift, ref),
    )


def _shift(con: duckdb.DuckDBPyConnection, ends: Ends) -> None:
    times = {
        "run.spans": ("start_ns", "end_ns", "launch_ns"),
        "collective_parts": ("enqueue_ns", "start_ns", "end_ns", "return_ns"),
    }
    terms = [str(term) for term in (ends.offset_ns, ends.drift_ppb, ends.ref_ns)]
    for table, columns in times.items():
        moved = ", ".join(f"{name} = {aligned(name, *terms)}" for name in columns)
        con.execute(
            f"UPDATE {table} SET {moved} WHERE source = ? AND rank = ?", [ends.source, ends.rank]
        )
