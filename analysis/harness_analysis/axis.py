"""The run's time axis while a database is being written: clocks seen so far, and their mappings.

A mapping is fixed the first time it is needed, so every row of a source lies on the same axis.
Collectors therefore yield a source's clock rows before its other rows (harness_schemas.spi).
"""

from __future__ import annotations

from typing import Any

from harness_analysis.clocks import Anchor, Mapping, PingPong, align_domains

MACRO = """
CREATE TEMP MACRO aligned(raw, offset_ns, drift_ppb, ref_ns) AS
  raw + coalesce(offset_ns, 0)
  + CASE WHEN coalesce(drift_ppb, 0) = 0 THEN 0
         ELSE CAST((raw - ref_ns)::HUGEINT * drift_ppb // 1000000000 AS BIGINT) END
"""

TIMES = {
    "spans": ("start_ns", "end_ns", "launch_ns"),
    "collectives": ("enqueue_ns", "start_ns", "end_ns"),
    "step_tokens": ("device_ns", "host_ns"),
    "requests": ("arrival_ns", "start_ns"),
    "samples": ("ts_ns",),
    "perf_counters": ("ts_ns",),
    "ranks": ("last_record_ns",),
}
"""Columns on a source's own clock, by table."""

SOURCE_OF = {
    "step_tokens": "app_timers",
    "requests": "app_timers",
    "ranks": "app_timers",
    "perf_counters": "perf",
}
"""Tables without a column `source`: whose clock their times are on."""


class Axis:
    """Clocks by (source, rank, host), their domains, and the mapping of every domain."""

    def __init__(self) -> None:
        self._anchors: list[Anchor] = []
        self._pingpongs: list[tuple[int, int, int, int, int, int]] = []
        self._clocks: dict[tuple[str, int | None, str | None], str] = {}
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
            key = (str(row.get("source")), row.get("rank"), row.get("host"))
            self._clocks.setdefault(key, domain)
            self._dirty = True

    def add_pingpongs(self, rows: list[dict[str, Any]]) -> None:
        """Take rows of `clock_pingpongs`."""
        times = ("t0_ns", "t1_ns", "t2_ns", "t3_ns")
        for row in rows:
            self._pingpongs.append((row["rank"], row["peer"], *(row[name] for name in times)))
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
        """The domain of the lowest rank of the first source that has one."""
        first = next(iter(self._clocks))
        ranks = [key for key in self._clocks if key[0] == first[0] and key[1] is not None]
        return self._clocks[min(ranks, key=lambda key: key[1] or 0) if ranks else first]

    def _trips(self) -> list[PingPong]:
        domains = {
            rank: domain for (_, rank, _), domain in self._clocks.items() if rank is not None
        }
        trips = []
        for rank, peer, *times in self._pingpongs:
            own, other = domains.get(rank), domains.get(peer)
            if own is not None and other is not None and own != other:
                trips.append(PingPong(own, other, *times))
        return trips

    def rows(self) -> list[dict[str, Any]]:
        """Rows of `clock_offsets`, in the order of sources and ranks."""
        found = []
        seen_reference = False
        ordered = sorted(
            self._clocks.items(),
            key=lambda item: (item[0][0], item[0][1] is None, item[0][1] or 0, item[0][2] or ""),
        )
        for (source, rank, host), domain in ordered:
            mapping = self._mappings[domain]
            method = mapping.method
            if domain == self._reference:
                # Every further process of the reference's host shares its clock.
                method = "same_host" if seen_reference else "reference"
                seen_reference = True
            found.append(
                {
                    "source": source,
                    "rank": rank,
                    "host": host,
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


def aligned_select(table: str, columns: list[str]) -> str:
    """SELECT that reads `batch` with its times mapped to the axis by `rank_clock`/`host_clock`."""
    times = set(TIMES.get(table, ()))
    parts = []
    for name in columns:
        if name in times:
            clock = "offset_ns, drift_ppb, ref_ns"
            if table in ("samples", "perf_counters"):
                clock = ", ".join(f"coalesce(k.{n}, h.{n})" for n in clock.split(", "))
            else:
                clock = ", ".join(f"k.{n}" for n in clock.split(", "))
            parts.append(f"aligned(b.{name}, {clock}) AS {name}")
        else:
            parts.append(f"b.{name}")
    source = f"'{SOURCE_OF[table]}'" if table in SOURCE_OF else "b.source"
    join = f" FROM batch b LEFT JOIN rank_clock k ON k.source = {source} AND k.rank = b.rank"
    if table in ("samples", "perf_counters"):
        join += f" LEFT JOIN host_clock h ON h.source = {source} AND h.host = b.host"
    return f"SELECT {', '.join(parts)}{join}"
