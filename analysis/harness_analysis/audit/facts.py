"""What an audit needs of one run's database beyond what a comparison reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness_analysis.compare.load import HEADLINE, Floats, RunData, load_run
from harness_analysis.compare.samples import BY_NAME, Sample, sample_of, spans
from harness_analysis.store import open_database

if TYPE_CHECKING:
    import duckdb

CLOCK_REASONS = {
    "power": 0x4 | 0x80,
    "thermal": 0x20 | 0x40,
    "hardware slowdown": 0x8,
}
"""Bits of NVML's clock event reasons (nvml.h): software power cap and power brake; software and
hardware thermal slowdown; hardware slowdown of either cause."""
RATE_ERROR_PPM = 200
"""A clock that runs faster or slower by more than this is not merely drifting."""
JUMP_NS = 1_000_000


@dataclass(frozen=True)
class Jump:
    """A clock that left its line between two anchors."""

    source: str
    host: str | None
    jump_ns: int
    after_s: float


@dataclass(frozen=True)
class Cost:
    """A measured overhead of observing."""

    collector: str
    phase: str | None
    off_ns: int
    effect_ns: int
    resolved: bool | None


@dataclass(frozen=True)
class Facts:
    """One run as an audit sees it; times in ns, None or empty where the evidence does not say."""

    data: RunData
    decode_ns: Floats
    """Headline decode steps in the order of time."""
    prefill_ns: Floats
    batched: int | None
    """Most requests that the engine had in one step."""
    request_wall_s: float | None
    """Measured batches by their requests: earliest start to latest token, summed."""
    unit_wall_s: float | None
    """The same by their units."""
    jumps: tuple[Jump, ...]
    throttled: Mapping[str, float]
    """Share of the samples of the clocks' reasons, in the measured time, by kind."""
    costs: tuple[Cost, ...]
    weights_bytes: int | None
    """Of the rank that holds most."""
    used: Mapping[str, float]
    """mbu and mfu by phase, as `decode mbu`: median of a rank's steps, of the highest rank."""

    @property
    def name(self) -> str:
        """The run's id."""
        return self.data.name


def load_facts(path: Path) -> Facts:
    """Read one database.

    Raises:
        EvidenceError: not a run's database.
    """
    data = load_run(path)
    with open_database(path) as con:
        return Facts(
            data=data,
            decode_ns=_spans(data, "decode"),
            prefill_ns=_spans(data, "prefill"),
            batched=_one(con, "SELECT max(batch_size) FROM steps"),
            request_wall_s=_request_wall(con),
            unit_wall_s=_unit_wall(data),
            jumps=tuple(_jumps(con)),
            throttled=_throttled(con),
            costs=_costs(con),
            weights_bytes=_one(con, "SELECT max(weights_bytes) FROM ranks"),
            used=_used(con),
        )


def _spans(data: RunData, phase: str) -> Floats:
    """A phase's units by their keys are in the order of time."""
    units = data.phases.get(phase)
    return np.array([]) if units is None else spans(units)


def _one(con: duckdb.DuckDBPyConnection, sql: str) -> int | None:
    (value,) = con.execute(sql).fetchone() or (None,)
    return None if value is None else int(value)


def _unit_wall(data: RunData) -> float | None:
    sample = sample_of(data, BY_NAME["tok_per_s"])
    if not isinstance(sample, Sample) or sample.weights is None:
        return None
    return float(sample.weights.sum())


def _request_wall(con: duckdb.DuckDBPyConnection) -> float | None:
    (ns,) = con.execute(
        """
        SELECT sum(ns) FROM (
          SELECT max(start_ns + e2e_ns) - min(start_ns) AS ns FROM requests
          WHERE NOT coalesce(warmup, false) AND perturbed_by IS NULL GROUP BY repeat, batch)
        """
    ).fetchone() or (None,)
    return None if ns is None else float(ns) / 1e9


def _used(con: duckdb.DuckDBPyConnection) -> dict[str, float]:
    rows = con.execute(
        f"""
        SELECT phase, max(mbu), max(mfu) FROM (
          SELECT rank, phase, median(mbu) AS mbu, median(mfu) AS mfu FROM utilisation
          WHERE {HEADLINE} GROUP BY rank, phase)
        GROUP BY phase ORDER BY phase
        """
    ).fetchall()
    found = {}
    for phase, *shares in rows:
        for name, share in zip(("mbu", "mfu"), shares, strict=True):
            if share is not None:
                found[f"{phase} {name}"] = float(share)
    return found


def _jumps(con: duckdb.DuckDBPyConnection) -> list[Jump]:
    """Anchors of one clock whose distance to the wall clock changes at once."""
    rows = con.execute(
        f"""
        WITH steps AS (
          SELECT source, host, raw_ns - lag(raw_ns) OVER w AS passed_ns,
            (wall_ns - raw_ns) - lag(wall_ns - raw_ns) OVER w AS moved_ns,
            coalesce(width_ns, 0) + coalesce(lag(width_ns) OVER w, 0) AS width_ns
          FROM clock_anchors
          WINDOW w AS (PARTITION BY source, timeline, rank, host, clock_domain ORDER BY raw_ns)
        )
        SELECT source, host, moved_ns, passed_ns FROM steps
        WHERE abs(moved_ns) > {JUMP_NS} + width_ns + passed_ns * {RATE_ERROR_PPM} / 1e6
        ORDER BY abs(moved_ns) DESC
        """
    ).fetchall()
    return [Jump(source, host, int(moved), passed / 1e9) for source, host, moved, passed in rows]


def _throttled(con: duckdb.DuckDBPyConnection) -> dict[str, float]:
    begin, end = con.execute(
        f"SELECT min(start_ns), max(start_ns + window_ns) FROM step_breakdown WHERE {HEADLINE}"
    ).fetchone() or (None, None)
    if begin is None:
        return {}
    values = [
        int(value)
        for (value,) in con.execute(
            """
            SELECT value FROM samples
            WHERE metric = 'clock_event_reasons' AND ts_ns BETWEEN ? AND ? AND value IS NOT NULL
            """,
            [begin, end],
        ).fetchall()
    ]
    if not values:
        return {}
    return {
        kind: sum(bool(value & bits) for value in values) / len(values)
        for kind, bits in CLOCK_REASONS.items()
    }


def _costs(con: duckdb.DuckDBPyConnection) -> tuple[Cost, ...]:
    rows = con.execute(
        """
        SELECT collector, phase, off_ns, effect_ns, resolved FROM overhead
        WHERE off_ns > 0 AND effect_ns IS NOT NULL ORDER BY collector, phase
        """
    ).fetchall()
    return tuple(Cost(*row) for row in rows)
