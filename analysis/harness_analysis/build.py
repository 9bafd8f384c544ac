"""Evidence in, database out: the order in which a run's file is made.

    stage rows  ->  align clocks  ->  match and split communication  ->  divide windows  ->
    name causes  ->  findings  ->  views

Repeatable: the same rows give the same file content.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness_analysis.breakdown import breakdown_tables
from harness_analysis.clocks import Anchor, Mapping, PingPong, align_domains
from harness_analysis.findings import find
from harness_analysis.store import Writer
from harness_analysis.views import create_views
from harness_schemas.spi import Batch

EXACT_SOURCES = ("torch_profiler", "nsys", "graph_events", "nccl_inspector")
"""Evidence whose device intervals are those of the kernels themselves."""


def build_database(
    path: Path, run_id: str, run_row: dict[str, Any], batches: Iterable[Batch]
) -> None:
    """Write the database of one run; `path` appears whole or not at all.

    `run_row`: columns of the table `runs`. Raises HarnessError where `path` cannot be written.
    """
    with Writer(path, run_id) as writer:
        for batch in batches:
            writer.add(batch.table, batch.data)
        writer.add_rows("runs", [{"run_id": run_id, **run_row}])
        _align(writer)
        writer.script("match")
        writer.script("stragglers")
        for table in breakdown_tables(writer.con):
            writer.add("unit_breakdown", table)
        writer.con.execute("INSERT INTO run.unit_breakdown SELECT * FROM stage.unit_breakdown")
        create_views(writer.con)
        writer.add_rows("findings", find(writer.con))
        writer.con.execute("INSERT INTO run.findings SELECT * FROM stage.findings")
        writer.finish()


def _align(writer: Writer) -> None:
    con = writer.con
    rows = con.execute(
        """
        SELECT clock_domain, raw_ns, wall_ns, coalesce(width_ns, 0) FROM stage.clock_anchors
        WHERE clock_domain IS NOT NULL AND raw_ns IS NOT NULL AND wall_ns IS NOT NULL
        ORDER BY ALL
        """
    ).fetchall()
    anchors = [Anchor(*row) for row in rows]
    clocks = con.execute(
        """
        SELECT source, rank, any_value(host), clock_domain FROM stage.clock_anchors
        WHERE clock_domain IS NOT NULL GROUP BY source, rank, clock_domain
        ORDER BY rank NULLS LAST, source
        """
    ).fetchall()
    mappings: dict[str, Mapping] = {}
    if clocks:
        domains = list(dict.fromkeys(clock[3] for clock in clocks))
        mappings = align_domains(domains, clocks[0][3], anchors, _pingpongs(writer))
    _write_offsets(writer, clocks, mappings)
    exact = ", ".join(f"('{source}')" for source in EXACT_SOURCES)
    con.execute(
        f"CREATE TEMP TABLE evidence_exact AS SELECT * FROM (VALUES {exact}) AS sources(source)"
    )
    con.execute(
        """
        CREATE TEMP TABLE clock_map AS
        SELECT source, rank, host, clock_domain, offset_ns, drift_ppb, ref_ns, residual_ns
        FROM stage.clock_offsets
        """
    )
    writer.script("align")


def _pingpongs(writer: Writer) -> list[PingPong]:
    return [
        PingPong(*row)
        for row in writer.con.execute(
            """
            SELECT a.clock_domain, b.clock_domain, t0_ns, t1_ns, t2_ns, t3_ns
            FROM stage.clock_pingpongs p
            JOIN stage.ranks a ON a.rank = p.rank JOIN stage.ranks b ON b.rank = p.peer
            WHERE a.clock_domain <> b.clock_domain ORDER BY ALL
            """
        ).fetchall()
    ]


def _write_offsets(
    writer: Writer, clocks: list[tuple[Any, ...]], mappings: dict[str, Mapping]
) -> None:
    rows = []
    seen_reference = False
    for source, rank, host, domain in clocks:
        mapping = mappings[domain]
        method = mapping.method
        if method == "reference":
            # Every further process of the reference's host shares its clock.
            method = "same_host" if seen_reference else "reference"
            seen_reference = True
        rows.append(
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
    writer.add_rows("clock_offsets", rows)


def safe_run_id(text: str) -> str:
    """A run id from a file or folder name."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-.") or "run"
