"""The run's time axis while a database is being written: clocks seen so far, and their mappings.

A mapping is fixed the first time it is needed, so every row of a source lies on the same axis.
Collectors therefore yield a source's clock rows before its other rows (harness_schemas.spi).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness_analysis.clocks.mapping import Anchor, Mapping, PingPong, align_domains

TIMES = {
    "spans": ("start_ns", "end_ns", "launch_ns"),
    "collectives": ("enqueue_ns", "start_ns", "end_ns", "return_ns"),
    "step_tokens": ("device_ns", "host_ns"),
    "requests": ("arrival_ns", "start_ns"),
    "samples": ("ts_ns",),
    "perf_counters": ("ts_ns",),
    "ranks": ("last_record_ns",),
}
"""Columns on a source's own clock, by table."""

HOST_TIMES = frozenset({"launch_ns", "enqueue_ns", "return_ns"})
"""Of these, the ones that the host's clock gave even where the row is about the device."""

SOURCE_OF = {
    "step_tokens": "app_timers",
    "requests": "app_timers",
    "ranks": "app_timers",
    "perf_counters": "perf",
}
"""Tables without a column `source`: whose clock their times are on."""


FACTS = ("clock_domain", "offset_ns", "drift_ppb", "ref_ns", "residual_ns")
CLOCK_FACTS = ", ".join(f"first({name}) AS {name}" for name in FACTS)


@dataclass(frozen=True)
class Clock:
    """Whose clock: the times of `source` on `timeline` (None: both) of a rank, or of a host."""

    source: str
    timeline: str | None
    rank: int | None
    host: str | None


class Axis:
    """Clocks by (source, rank, host), their domains, and the mapping of every domain."""

    def __init__(self) -> None:
        self._anchors: list[Anchor] = []
        self._pingpongs: list[tuple[Any, Any, int, int, int, int]] = []
        self._clocks: dict[Clock, str] = {}
        self._mappings: dict[str, Mapping] = {}
        self._reference: str | None = None
        self._dirty = False

    def add_anchors(self, rows: list[dict[str, Any]]) -> None:
        """Take rows of `clock_anchors`."""
        for row in rows:
            domain, raw, wall = row.get("clock_domain"), row.get("raw_ns"), row.get("wall_ns")
            if domain is None:
                continue
            if raw is not None and wall is not None:
                self._anchors.append(Anchor(domain, raw, wall, row.get("width_ns") or 0))
            clock = Clock(
                str(row.get("source")), row.get("timeline"), row.get("rank"), row.get("host")
            )
            self._clocks.setdefault(clock, domain)
            self._dirty = True

    def add_pingpongs(self, rows: list[dict[str, Any]]) -> None:
        """Take rows of `clock_pingpongs`."""
        times = ("t0_ns", "t1_ns", "t2_ns", "t3_ns")
        for row in rows:
            sides = (row.get("clock_domain") or row["rank"], row.get("peer_domain") or row["peer"])
            self._pingpongs.append((*sides, *(row[name] for name in times)))
            self._dirty = True

    def refresh(self) -> bool:
        """Map every domain seen so far; returns whether anything is new."""
        if not self._dirty:
            return False
        self._dirty = False
        new = [
            domain
            for domain in dict.fromkeys(self._clocks.values())
            if domain not in self._mappings
        ]
        if new:
            if self._reference is None:
                self._reference = self._first_domain()
            found = align_domains(new, self._reference, self._anchors, self._trips())
            for domain, mapping in found.items():
                self._mappings.setdefault(domain, mapping)
        return True

    def _first_domain(self) -> str:
        """The host's domain of the lowest rank of the first source that has one."""
        first = next(iter(self._clocks))
        ranked = [
            clock
            for clock in self._clocks
            if clock.source == first.source
            and clock.rank is not None
            and clock.timeline != "device"
        ]
        return self._clocks[min(ranked, key=lambda clock: clock.rank or 0) if ranked else first]

    def _trips(self) -> list[PingPong]:
        """Round trips between two domains; ranks stand for the clock of their host."""
        hosts = {c.rank: d for c, d in self._clocks.items() if c.timeline != "device"}
        trips = []
        for own, other, *times in self._pingpongs:
            sides = [side if isinstance(side, str) else hosts.get(side) for side in (own, other)]
            if None not in sides and sides[0] != sides[1]:
                trips.append(PingPong(str(sides[0]), str(sides[1]), *times))
        return trips

    def rows(self) -> list[dict[str, Any]]:
        """Rows of `clock_offsets`, in the order of sources and ranks."""
        found = []
        seen_reference = False
        ordered = sorted(
            self._clocks.items(),
            key=lambda item: (
                item[0].source,
                item[0].timeline or "",
                item[0].rank is None,
                item[0].rank or 0,
                item[0].host or "",
            ),
        )
        for clock, domain in ordered:
            mapping = self._mappings[domain]
            method = mapping.method
            if domain == self._reference:
                # Every further process of the reference's host shares its clock.
                method = "same_host" if seen_reference else "reference"
                seen_reference = True
            found.append(
                {
                    "source": clock.source,
                    "timeline": clock.timeline,
                    "rank": clock.rank,
                    "host": clock.host,
                    "clock_domain": domain,
                    "offset_ns": mapping.offset_ns,
                    "drift_ppb": mapping.drift_ppb,
                    "ref_ns": mapping.ref_ns,
                    "residual_ns": mapping.residual_ns,
                    "method": method,
                    "samples": mapping.samples,
                }
            )
        return found


def clock_select(relation: str) -> str:
    """SELECT of the mapping of every (source, timeline, rank), from rows of `clock_offsets`."""
    # A clock without a timeline serves both.
    return f"""
        SELECT source, t.timeline, rank, {CLOCK_FACTS}
        FROM {relation} c JOIN (VALUES ('host'), ('device')) t(timeline)
          ON c.timeline IS NULL OR c.timeline = t.timeline
        WHERE rank IS NOT NULL GROUP BY source, t.timeline, rank
        """


def aligned(raw: str, offset: str, drift: str, ref: str) -> str:
    """A raw time on the axis, exactly: the product with the drift needs more than 64 bits. NULL
    for one that is damaged, so that the sum needs more too."""
    return (
        f"TRY({raw} + coalesce({offset}, 0) + CASE WHEN coalesce({drift}, 0) = 0 THEN 0 "
        f"ELSE CAST(({raw} - {ref})::HUGEINT * {drift} // 1000000000 AS BIGINT) END)"
    )


def aligned_select(table: str, columns: Sequence[str], relation: str = "batch") -> str:
    """SELECT that reads `relation` with its times mapped to the axis.

    Uses the relations `rank_clock` (by source, timeline, rank) and `host_clock`. What is read may
    lack the columns that name its clock: they count as NULL, and its times as aligned.
    """

    def own(name: str) -> str:
        return f"b.{name}" if name in columns else "NULL"

    source = f"'{SOURCE_OF[table]}'" if table in SOURCE_OF else own("source")
    on_host = table in ("samples", "perf_counters")
    joins = [
        f"LEFT JOIN rank_clock k ON k.source = {source} AND k.rank = {own('rank')} "
        f"AND k.timeline = coalesce({own('timeline')}, 'host')"
    ]
    if on_host:
        joins.append(f"LEFT JOIN host_clock h ON h.source = {source} AND h.host = {own('host')}")
    if HOST_TIMES & set(columns):
        joins.append(
            f"LEFT JOIN rank_clock l ON l.source = {source} AND l.rank = {own('rank')} "
            "AND l.timeline = 'host'"
        )
    parts = []
    for name in columns:
        if name not in TIMES.get(table, ()):
            parts.append(f"b.{name}")
            continue
        clock = "l" if name in HOST_TIMES else "k"
        terms = [f"{clock}.{term}" for term in ("offset_ns", "drift_ppb", "ref_ns")]
        if on_host:
            terms = [f"coalesce({term}, h{term[1:]})" for term in terms]
        parts.append(f"{aligned(f'b.{name}', *terms)} AS {name}")
    return f"SELECT {', '.join(parts)} FROM {relation} b {' '.join(joins)}"
