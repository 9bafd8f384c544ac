"""Rows of the catalogue from one run: its run.json, and its database where there is one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness_analysis.store import open_database
from harness_schemas.errors import HarnessError
from harness_schemas.vocabulary import EVIDENCE_RANK

if TYPE_CHECKING:
    import duckdb

SAID = ("name", "status", "verdict", "verdict_detail", "exit_code", "sweep_id", "cell", "repeat")
MORE = ("job_id", "attempt", "device", "started_ns", "ended_ns")
HEADLINE = (
    *("requests", "output_tokens", "wall_s", "tok_per_s", "tok_per_s_per_rank", "step_ms"),
    *("resource_use", "io_s", "communication_s", "communication_wait_share", "preprocessing_s"),
    "load_s",
)
LATENESS = (
    *("phase", "comm_group", "source", "rank", "host", "local_rank", "gpu_uuid", "collectives"),
    *("times_last", "wait_caused_ns", "share_of_wait", "named", "main_cause"),
)

Row = dict[str, Any]


def run_facts(data: Mapping[str, Any], database: Path | None) -> tuple[Row, list[Row]]:
    """The run's row, and its rows of `lateness`. Without a database, what run.json says.

    A database that cannot be read (another version's, a broken one) counts as none.
    """
    row = configuration(data)
    if database is None:
        return row, []
    import duckdb

    try:
        with open_database(database) as con:
            return {**row, **_headline(con), **_latency(con)}, _lateness(con)
    except (HarnessError, duckdb.Error):
        return {**row, "has_database": False}, []


def configuration(data: Mapping[str, Any]) -> Row:
    """Columns that run.json holds; what it does not say stays unknown."""
    spec = data.get("spec") or {}
    generation, parallel = spec.get("generation") or {}, spec.get("parallel") or {}
    tp, pp = parallel.get("tp"), parallel.get("pp")
    host = ((data.get("provenance") or {}).get("host") or {}).get("name")
    return {
        **{name: data.get(name) for name in (*SAID, *MORE)},
        **{name: spec.get(name) for name in ("runner", "dtype")},
        **{name: generation.get(name) for name in ("batch_size", "microbatches")},
        "tp": tp,
        "pp": pp,
        "world_size": tp * pp if tp and pp else None,
        "spec": json.dumps(spec, sort_keys=True) if spec else None,
        "host": host,
    }


def _headline(con: duckdb.DuckDBPyConnection) -> Row:
    found = con.execute(f"SELECT {', '.join(HEADLINE)} FROM run_summary").fetchone()
    return dict(zip(HEADLINE, found, strict=True)) if found else {}


def _latency(con: duckdb.DuckDBPyConnection) -> Row:
    rows = con.execute("SELECT metric, p50_ns / 1e6 FROM latency").fetchall()
    medians = dict(rows)
    return {f"{name}_p50_ms": medians.get(name) for name in ("ttft", "tpot")}


def _lateness(con: duckdb.DuckDBPyConnection) -> list[Row]:
    """Every rank of every group and phase, by the best evidence that judges it.

    Units that observing slowed count where no others judge it, as of CUDA graphs.
    """
    rows = con.execute(
        """
        SELECT s.phase, s.comm_group, s.source, s.rank, r.host, r.local_rank, r.gpu_uuid,
          s.collectives, s.times_last, s.wait_caused_ns, s.share_of_wait,
          EXISTS (FROM findings f WHERE f.kind = 'straggler' AND f.rank = s.rank
            AND f.phase = s.phase) AS named,
          s.main_cause
        FROM stragglers s LEFT JOIN ranks r ON r.rank = s.rank
        WHERE s.phase IN ('prefill', 'decode', 'mixed')
        QUALIFY rank() OVER (PARTITION BY s.phase, s.comm_group
          ORDER BY s.perturbed, coalesce(list_position(?::VARCHAR[], s.source), 99), s.source) = 1
        """,
        [list(EVIDENCE_RANK)],
    ).fetchall()
    return [dict(zip(LATENESS, row, strict=True)) for row in rows]
