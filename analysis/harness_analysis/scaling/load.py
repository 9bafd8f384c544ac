"""What runs' databases hold for a scaling table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness_analysis.estimates import parts_view
from harness_analysis.findings.launches import idle_device
from harness_analysis.scaling.cells import flatten
from harness_analysis.scaling.facts import RankTime, RunFacts
from harness_analysis.store import open_database, rows_of
from harness_schemas.vocabulary import PARTS

if TYPE_CHECKING:
    import duckdb

MEASURED = ("prefill", "decode", "mixed")


def load_runs(paths: Iterable[Path]) -> list[RunFacts]:
    """The facts of every run, one file open at a time.

    Raises:
        EvidenceError: a file is no database.
    """
    found = []
    for path in paths:
        with open_database(path) as con:
            found += load_facts(con)
    return found


def load_facts(con: duckdb.DuckDBPyConnection) -> list[RunFacts]:
    """The facts of the runs of one database."""
    return [_facts(con, row) for row in rows_of(con, "FROM runs ORDER BY run_id")]


def _facts(con: duckdb.DuckDBPyConnection, run: dict[str, Any]) -> RunFacts:
    run_id = run["run_id"]
    summary = (rows_of(con, "FROM run_summary WHERE run_id = ?", run_id) or [{}])[0]
    latency = {
        row["metric"]: row["p50_ns"]
        for row in rows_of(con, "FROM latency WHERE run_id = ?", run_id)
    }
    (placed,) = rows_of(
        con,
        "SELECT count(DISTINCT host) AS hosts, count(DISTINCT rank) AS ranks FROM ranks "
        "WHERE run_id = ?",
        run_id,
    )
    wall = summary.get("wall_s")
    provenance = _json(run["provenance"])
    return RunFacts(
        run_id=run_id,
        settings=flatten(_json(run["spec"])) if run["spec"] else {},
        repeat=run["repeat"] or 0,
        status=run["status"],
        verdict=run["verdict"],
        detail=run["verdict_detail"],
        device=run["device"],
        world_size=run["world_size"] or placed["ranks"] or None,
        tp=run["tp"],
        pp=run["pp"],
        batch_size=run["batch_size"],
        hosts=placed["hosts"] or None,
        cpus=(provenance.get("host") or {}).get("cpus"),
        versions=_versions(provenance),
        started_ns=run["started_ns"],
        requests=summary.get("requests"),
        output_tokens=summary.get("output_tokens"),
        wall_ns=None if wall is None else round(wall * 1e9),
        resource_use=summary.get("resource_use"),
        io_s=summary.get("io_s"),
        communication_s=summary.get("communication_s"),
        wait_share=summary.get("communication_wait_share"),
        preprocessing_s=summary.get("preprocessing_s"),
        tpot_ms=_ms(latency.get("tpot")),
        idle_share=None if (idle := idle_device(con, run_id)) is None else idle.share,
        ranks=_ranks(con, run_id, MEASURED),
        decode=_ranks(con, run_id, ("decode",)),
        **_sampled(con, run_id),
    )


def _versions(provenance: dict[str, Any]) -> dict[str, str]:
    own = provenance.get("harness")
    return {**({} if own is None else {"harness": str(own)}), **(provenance.get("packages") or {})}


def _ranks(
    con: duckdb.DuckDBPyConnection, run_id: str, phases: Sequence[str]
) -> tuple[RankTime, ...]:
    sums = ", ".join(f"sum({part})::BIGINT AS {part}" for part in PARTS)
    rows = rows_of(
        con,
        f"SELECT rank, sum(window_ns)::BIGINT AS window_ns, {sums} FROM {parts_view(con)} "
        "WHERE run_id = ? AND list_contains(?, phase) GROUP BY rank ORDER BY rank",
        run_id,
        list(phases),
    )
    return tuple(
        RankTime(row["rank"], row["window_ns"], {part: row[part] for part in PARTS}) for row in rows
    )


def _sampled(con: duckdb.DuckDBPyConnection, run_id: str) -> dict[str, Any]:
    """How many steps of decode its parts were estimated from, and how slow these were."""
    if parts_view(con) != "rank_estimate":
        return {}
    return rows_of(
        con,
        "SELECT max(sampled_units) AS sampled_steps, max(slowed) AS slowed FROM rank_estimate "
        "WHERE run_id = ? AND phase = 'decode'",
        run_id,
    )[0]


def _json(text: str | None) -> dict[str, Any]:
    try:
        data = json.loads(text or "{}")
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def _ms(ns: float | None) -> float | None:
    return None if ns is None else ns / 1e6
