"""One time axis for all clocks (design, section 3 "Clocks"; method in docs/clocks.md).

Every source of times has a clock domain. Processes of one host share CLOCK_MONOTONIC, so their
domain is the boot id and no correction among them is needed. The axis is Unix time as the
reference domain (that of the lowest rank) saw it; other domains are mapped through ping-pongs,
or, failing that, through their own wall clock with an unknown residual.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

SAME_HOST_RESIDUAL_NS = 100
"""Disagreement of CLOCK_MONOTONIC between cores of one Linux host (TSC-backed)."""


@dataclass(frozen=True)
class Anchor:
    """A moment read on a domain's clock and on its host's wall clock."""

    domain: str
    raw_ns: int
    wall_ns: int
    width_ns: int


@dataclass(frozen=True)
class PingPong:
    """A round trip: sent and received on `domain`'s clock, turned around on `peer`'s."""

    domain: str
    peer: str
    t0_ns: int
    t1_ns: int
    t2_ns: int
    t3_ns: int

    def seen_from(self, domain: str) -> OffsetSample:
        """What this round trip says about `domain`'s clock (either side's)."""
        offset = ((self.t1_ns - self.t0_ns) + (self.t2_ns - self.t3_ns)) // 2
        round_trip = (self.t3_ns - self.t0_ns) - (self.t2_ns - self.t1_ns)
        if domain == self.domain:
            return OffsetSample((self.t0_ns + self.t3_ns) // 2, offset, round_trip)
        return OffsetSample((self.t1_ns + self.t2_ns) // 2, -offset, round_trip)


@dataclass(frozen=True)
class OffsetSample:
    """The other clock minus this one, at a moment of this one, if both ways took equally long."""

    at_ns: int
    offset_ns: int
    round_trip_ns: int
    """Time on the network, both ways; half of it bounds the error of the offset."""


@dataclass(frozen=True)
class Mapping:
    """aligned = raw + offset + drift_ppb * (raw - ref) / 1e9, in integers."""

    domain: str
    offset_ns: int
    drift_ppb: int
    ref_ns: int
    residual_ns: int | None
    method: str
    samples: int

    def apply(self, raw_ns: int) -> int:
        """Aligned time of a raw time."""
        return raw_ns + self.offset_ns + (raw_ns - self.ref_ns) * self.drift_ppb // 1_000_000_000


def align_domains(
    domains: Iterable[str],
    reference: str,
    anchors: Iterable[Anchor],
    pingpongs: Iterable[PingPong],
) -> dict[str, Mapping]:
    """A mapping for every domain, `reference` first. Complexity: linear in the measurements."""
    by_domain: dict[str, list[Anchor]] = {}
    for anchor in anchors:
        by_domain.setdefault(anchor.domain, []).append(anchor)
    base = _wall_mapping(reference, by_domain.get(reference, []), "reference")
    found = {reference: base}
    trips = list(pingpongs)
    missing = [domain for domain in dict.fromkeys(domains) if domain not in found]
    # Outwards from the reference: a device is paired with its host, its host with another. What
    # is left begins anew with a host that only its wall clock ties.
    while missing:
        reached = [d for d in missing if any(_joins(t, d, found) for t in trips)]
        for domain in reached:
            seen = [_on_axis(t, domain, found) for t in trips if _joins(t, domain, found)]
            found[domain] = fit_round_trips(domain, seen)
        if not reached:
            domain = max(missing, key=lambda d: len(by_domain.get(d, [])))
            found[domain] = _wall_mapping(domain, by_domain.get(domain, []), "wall_clock")
        missing = [domain for domain in missing if domain not in found]
    return found


def _joins(trip: PingPong, domain: str, found: dict[str, Mapping]) -> bool:
    """Whether a sound round trip leads from `domain` to one that is mapped already."""
    other = {trip.domain: trip.peer, trip.peer: trip.domain}.get(domain)
    return other in found and trip.seen_from(domain).round_trip_ns >= 0


def _on_axis(trip: PingPong, domain: str, found: dict[str, Mapping]) -> OffsetSample:
    """Aligned time minus `domain`'s clock, as one round trip shows it."""
    seen = trip.seen_from(domain)
    other = found[trip.peer if trip.domain == domain else trip.domain]
    there = seen.at_ns + seen.offset_ns
    return OffsetSample(
        seen.at_ns, seen.offset_ns + (other.apply(there) - there), seen.round_trip_ns
    )


def _wall_mapping(domain: str, anchors: list[Anchor], method: str) -> Mapping:
    if not anchors:
        return Mapping(domain, 0, 0, 0, None, "none", 0)
    # One constant: a wall clock that is being slewed must not stretch measured durations.
    tight = sorted(anchors, key=lambda anchor: anchor.width_ns)[: max(1, len(anchors) // 2)]
    # The middle one as an integer: a float64 holds Unix nanoseconds only to 256 ns.
    offset = sorted(anchor.wall_ns - anchor.raw_ns for anchor in tight)[len(tight) // 2]
    residual = SAME_HOST_RESIDUAL_NS if method == "reference" else None
    return Mapping(domain, offset, 0, anchors[0].raw_ns, residual, method, len(anchors))


def fit_round_trips(domain: str, trips: list[OffsetSample], method: str = "ping_pong") -> Mapping:
    """Offset and drift against the axis from the quickest round trips of each cluster.

    Least squares over the quickest tenth of the trips, taken in clusters of 2 s so that the
    start and the end of the run both count. The residual is half the slowest round trip used
    (the bound of an asymmetric path) plus the largest distance from the line.
    """
    best = _quickest(trips)
    raw = np.array([trip.at_ns for trip in best], dtype=np.int64)
    # Offsets are of the order of Unix time: the fit is made around the first, in exact integers.
    first = best[0].offset_ns
    offset = np.array([float(trip.offset_ns - first) for trip in best])
    ref = int(raw[0])
    slope = 0.0
    span = int(raw.max() - raw.min())
    if span > 1_000_000_000:
        slope, intercept = np.polyfit((raw - ref).astype(float), offset, 1)
    else:
        intercept = float(np.median(offset))
    fit = intercept + slope * (raw - ref)
    spread = float(np.abs(offset - fit).max())
    bound = max(trip.round_trip_ns for trip in best) / 2
    return Mapping(
        domain,
        first + round(intercept),
        round(slope * 1e9),
        ref,
        int(spread + bound) + SAME_HOST_RESIDUAL_NS,
        method,
        len(trips),
    )


def _quickest(trips: list[OffsetSample]) -> list[OffsetSample]:
    clusters: dict[int, list[OffsetSample]] = {}
    for trip in sorted(trips, key=lambda trip: trip.at_ns):
        clusters.setdefault(trip.at_ns // 2_000_000_000, []).append(trip)
    chosen = []
    for members in clusters.values():
        members.sort(key=lambda trip: trip.round_trip_ns)
        chosen += members[: max(1, len(members) // 10)]
    return sorted(chosen, key=lambda trip: trip.at_ns)
