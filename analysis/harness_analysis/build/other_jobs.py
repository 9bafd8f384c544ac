"""Evidence of another job among the rest, which nobody should read as one run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness_analysis.findings.finding import Finding
from harness_analysis.verdict.tables import foreign_jobs
from harness_schemas.units import format_ns

if TYPE_CHECKING:
    import duckdb

REMEDY = "it was not joined with them: ingest each job by itself"


def other_jobs(con: duckdb.DuckDBPyConnection) -> list[Finding]:
    """A finding an evidence that is of another job than the others.

    Reads temp tables strangers (sql/build/strangers.sql) and apart (build/apart.py), and what
    collectors refused.
    """
    told = con.execute(
        "SELECT source, list(rank ORDER BY rank), min(why) FROM strangers"
        " GROUP BY source ORDER BY source"
    ).fetchall()
    found = []
    for source, ranks, others, gap_ns in con.execute("FROM apart ORDER BY ALL").fetchall():
        text = (
            f"{source} of rank {_named(ranks)} begins {format_ns(gap_ns)} after that of rank"
            f" {_named(others)} had ended: of another job or moment, or by a clock that is off;"
            f" {REMEDY}"
        )
        found.append(Finding("problem", "other_job", text, evidence=source))
    for source, ranks, why in told:
        text = (
            f"{source} of rank {_named(ranks)} is of another job than the other evidence ({why});"
            f" {REMEDY}"
        )
        found.append(Finding("problem", "other_job", text, evidence=source))
    found += _logs_beside(con)
    foreign = foreign_jobs(con)
    if foreign:
        more = f" (and {len(foreign) - 1} more)" if len(foreign) > 1 else ""
        job, why = foreign[0]
        text = f"job {job}{more} of Slurm's accounting is not what was recorded: {why}"
        found.append(Finding("problem", "other_job", f"{text}; its end is not this run's"))
    refused = con.execute(
        "SELECT collector, reason FROM run.collection WHERE state = 'failed'"
        " AND reason LIKE '%of another job or attempt%' ORDER BY ALL"
    ).fetchall()
    if refused:
        more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
        collector, reason = refused[0]
        found.append(Finding("problem", "other_job", f"{reason}{more}", evidence=collector))
    return found


def _logs_beside(con: duckdb.DuckDBPyConnection) -> list[Finding]:
    """NCCL's logs of more processes than the recorded ones, whose logs are there as well: of a
    rank that was recorded, or of any where the processes of all ranks are known."""
    ((ranks, pids),) = con.execute(
        """
        WITH recorded AS (
          SELECT rank, any_value(pid) AS pid FROM run.ranks WHERE rank IS NOT NULL
          GROUP BY rank HAVING count(DISTINCT pid) = 1
        ), logged AS (SELECT DISTINCT rank, pid FROM run.nccl_comms WHERE pid IS NOT NULL)
        SELECT list(DISTINCT r.rank), list(DISTINCT other.pid ORDER BY other.pid)
        FROM recorded r JOIN logged own ON own.pid = r.pid AND coalesce(own.rank = r.rank, true)
        JOIN logged other ON other.pid <> r.pid AND (other.rank = r.rank OR other.rank IS NULL
          AND other.pid NOT IN (SELECT pid FROM recorded)
          AND (SELECT count(*) FROM recorded) = (SELECT max(world_size) FROM run.runs))
        """
    ).fetchall()
    if not ranks:
        return []
    text = (
        f"nccl_log of rank {_named(ranks)} is of other processes too ({_named(pids)}): of another "
        f"job or attempt; their calls stand among the rows of nccl_log; {REMEDY}"
    )
    return [Finding("problem", "other_job", text, evidence="nccl_log")]


def _named(ranks: Sequence[int]) -> str:
    return ", ".join(map(str, sorted(ranks)[:8])) + (" ..." if len(ranks) > 8 else "")
