"""The verdict out of a database: what its tables say of an end, joined with what is known else.

Reads `log_lines`, `nccl_events`, `slurm_steps`, `collection`, and the samples of the control
group's OOM counter; how far ranks were in their collectives comes from the Flight Recorder.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness_analysis.verdict.judge import judge
from harness_analysis.verdict.model import SURVIVED, StepState, TextLine, Verdict, VerdictEvidence
from harness_analysis.verdict.suspects import CollectiveProgress
from harness_schemas.units import EARLIEST_WALL_NS

if TYPE_CHECKING:
    import duckdb

_STEP_COLUMNS = (
    "job_id",
    "step_id",
    "state",
    "exit_code",
    "signal",
    "name",
    "reason",
    "attempt",
    "derived_exit",
)
_MOST_LINES = 20_000
_FAR_NS = 26 * 3_600 * 10**9
"""Further than any two time zones are apart."""


def evidence_of(con: duckdb.DuckDBPyConnection, known: VerdictEvidence) -> VerdictEvidence:
    """`known` (exit codes, stderr of ranks) with everything that the tables add to it.

    Steps are those of one job; of several jobs none are taken, for which of them the other
    evidence belongs to is not known (table `job_verdicts` judges each), nor those of another job.
    """
    foreign = {job for job, _ in foreign_jobs(con)}
    steps = [step for step in _steps(con) if step.job_id not in foreign]
    (job,) = con.execute("SELECT first(job_id) FROM runs").fetchone() or (None,)
    jobs = {_whole(step.job_id) for step in steps}
    mine = [step for step in steps if step.job_id == job or len(jobs) == 1]
    kills = _oom_kills(con)
    return replace(
        known,
        world_size=known.world_size or _world_size(con),
        lines=(*known.lines, *_lines(con)),
        steps=tuple(mine),
        oom_kills=known.oom_kills if kills is None else max(kills, known.oom_kills or 0),
        progress=known.progress or tuple(_progress(con)),
    )


def foreign_jobs(con: duckdb.DuckDBPyConnection) -> list[tuple[str, str]]:
    """Jobs that cannot be the one that was recorded, and why: only times far apart tell, since
    accounting may be in the time of its own zone."""
    return [
        (job, why)
        for job, why in con.execute(
            f"""
            WITH recorded AS (
              SELECT coalesce(min(r.started_ns), min(c.begin_ns)) AS begin_ns,
                coalesce(max(r.ended_ns), max(c.end_ns)) AS end_ns
              FROM runs r CROSS JOIN (
                SELECT min(start_ns) AS begin_ns, max(end_ns) AS end_ns FROM collectives
                WHERE start_ns > {EARLIEST_WALL_NS}
              ) c
            ), jobs AS (
              SELECT job_id, min(started_ns) AS begin_ns, max(ended_ns) AS end_ns
              FROM slurm_steps WHERE job_id IS NOT NULL GROUP BY job_id
            )
            SELECT job_id, CASE
              WHEN j.begin_ns > r.end_ns + {_FAR_NS} THEN 'it began long after the recording'
              WHEN j.end_ns < r.begin_ns - {_FAR_NS} THEN 'it had ended long before the recording'
            END AS why
            FROM jobs j CROSS JOIN recorded r WHERE why IS NOT NULL ORDER BY job_id
            """
        ).fetchall()
    ]


def _whole(job_id: str) -> str:
    """The job of which `90+1` is a part: a heterogeneous job ends as one."""
    return job_id.partition("+")[0]


def job_verdicts(con: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """Rows of `job_verdicts`: each job judged by its own steps alone."""
    jobs: dict[str, list[StepState]] = {}
    for step in _steps(con):
        jobs.setdefault(step.job_id, []).append(step)
    rows = []
    for job, steps in jobs.items():
        found = judge(VerdictEvidence(steps=tuple(steps)))
        row = {"job_id": job, "verdict": found.name}
        rows.append({**row, "evidence": found.evidence or None, "remedy": found.remedy or None})
    return rows


def settle(
    con: duckdb.DuckDBPyConnection, known: VerdictEvidence, before: str | None
) -> Verdict | None:
    """The verdict of the run; None where the evidence says nothing about an end.

    `before`: the verdict given when the run ended, which only a better reason replaces.
    """
    evidence = evidence_of(con, known)
    found = judge(evidence)
    silent = not (evidence.lines or evidence.steps or evidence.rank_exits)
    says_little = found.name == "unknown" or found.rule == "launcher-exit"
    if says_little and (before is not None or silent):
        return None
    if found.name == "ok" and before not in (None, "ok", "unknown"):
        return None
    return found


def _steps(con: duckdb.DuckDBPyConnection) -> list[StepState]:
    columns = ", ".join(_STEP_COLUMNS)
    rows = con.execute(
        f"SELECT {columns} FROM slurm_steps WHERE job_id IS NOT NULL"
        " ORDER BY job_id, attempt NULLS FIRST, step_id NULLS FIRST, state"
    ).fetchall()
    return [StepState(**dict(zip(_STEP_COLUMNS, row, strict=True))) for row in rows]


def _lines(con: duckdb.DuckDBPyConnection) -> Iterator[TextLine]:
    outlived: list[str] = []
    for kind, text, rank in con.execute(
        "SELECT kind, text, rank FROM log_lines"
        " WHERE NOT ends_with(coalesce(file, ''), 'agent.log')"  # the samplers' end is no cause
        f" ORDER BY file, line NULLS LAST, rowid LIMIT {_MOST_LINES}"
    ).fetchall():
        outlived += [text] if kind == SURVIVED else []
        yield TextLine(kind, text, rank)
    whole = " ".join("\n".join(outlived).split())
    for kind, text, rank in con.execute(
        "SELECT kind, text, rank FROM nccl_events"
        " WHERE severity = 'problem' OR kind LIKE 'watchdog%' OR kind = 'nccl_warn'"
        f" ORDER BY ts_ns NULLS FIRST, rank NULLS FIRST, text LIMIT {_MOST_LINES}"
    ).fetchall():
        said = {"nccl_warn": "NCCL WARN ", "pending": "Flight Recorder: "}.get(kind, "")
        told_before = whole and " ".join(text.split()) in whole  # the same lines, read there too
        yield TextLine(SURVIVED if told_before else "nccl", said + text, rank)
    for (reason,) in con.execute(
        "SELECT DISTINCT reason FROM collection WHERE collector = 'sacct'"
        " AND reason IS NOT NULL ORDER BY reason"
    ).fetchall():
        yield TextLine("log", reason)


def _oom_kills(con: duckdb.DuckDBPyConnection) -> int | None:
    """Rise of the counter over the run, summed over hosts; None: it was not read."""
    (total,) = con.execute(
        "SELECT sum(rise) FROM (SELECT max(value) - min(value) AS rise FROM samples"
        " WHERE metric = 'cgroup_oom_kill' GROUP BY host)"
    ).fetchone() or (None,)
    return None if total is None else int(total)


def _world_size(con: duckdb.DuckDBPyConnection) -> int | None:
    (size,) = con.execute("SELECT max(nranks) FROM nccl_comms").fetchone() or (None,)
    return None if size is None else int(size)


def _progress(con: duckdb.DuckDBPyConnection) -> Iterator[CollectiveProgress]:
    """The last collective entered and left, by rank and group.

    Only ranks whose dump is there: a dump that was not collected says nothing about its rank.
    """
    rows = con.execute(
        """
        SELECT rank, comm_group, max(seq) AS entered,
               max(seq) FILTER (WHERE unsplit_reason IS DISTINCT FROM 'never ended') AS left_
        FROM collectives
        WHERE source = 'flight_recorder' AND rank IS NOT NULL AND comm_group IS NOT NULL
              AND seq IS NOT NULL AND op NOT IN ('send', 'recv')
        GROUP BY rank, comm_group ORDER BY comm_group, rank
        """
    ).fetchall()
    for rank, group, entered, left in rows:
        yield CollectiveProgress(rank, group, entered, -1 if left is None else left)
