"""Where the time of every unit went: windows that tile, one sweep, nine parts.

Definitions: design, section 3 (docs/definitions.md). One rank at a time, so memory is bounded by
the rank with the most spans; O(n log n) in its spans. Reads the temporary relations `sources_here`,
`spans_here` and `collectives_here` (harness_analysis.build.chunks).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from harness_analysis.build.breakdown.device import device_rows
from harness_analysis.build.breakdown.evidence import Evidence
from harness_analysis.build.breakdown.host import host_rows

if TYPE_CHECKING:
    import duckdb


def breakdown_tables(con: duckdb.DuckDBPyConnection) -> Iterator[pa.Table]:
    """Rows for `unit_breakdown` of the ranks in `sources_here`, one table for each rank and
    evidence, keys of work included."""
    for evidence in _evidence(con):
        if evidence.timeline == "device":
            yield from device_rows(con, evidence)
        else:
            yield from host_rows(con, evidence)


def _evidence(con: duckdb.DuckDBPyConnection) -> list[Evidence]:
    """Ranks and sources to divide: the device timeline where a source has one, else the host's."""
    rows = con.execute(
        "SELECT rank, source, on_device, host_units FROM sources_here ORDER BY rank, source"
    ).fetchall()
    on_device = {rank for rank, _, device, _ in rows if device}
    found = []
    for rank, source, device, host in rows:
        if device:
            found.append(Evidence(rank, source, "device"))
        elif host and rank not in on_device:
            # A host timeline is divided only where the host computes: beside a GPU it launches.
            found.append(Evidence(rank, source, "host"))
    return found
