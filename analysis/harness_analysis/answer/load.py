"""The questions that make an answer."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, TypeVar

from harness_analysis.answer.correctness import read_correctness
from harness_analysis.answer.model import (
    Answer,
    Clock,
    CollectorState,
    Correctness,
    Coverage,
    FoundFact,
    Latency,
    Overhead,
    Parts,
    RankBreakdown,
    RunFacts,
    Throughput,
    Unanswered,
)
from harness_analysis.estimates import parts_relation
from harness_schemas.errors import EvidenceError
from harness_schemas.vocabulary import MEASURED_PHASES, PARTS

if TYPE_CHECKING:
    import duckdb

T = TypeVar("T")


def load_answer(con: duckdb.DuckDBPyConnection) -> Answer:
    """Read a run's answer from its database."""
    throughput = _read(con, Throughput, "run_summary")
    return Answer(
        run=_run_facts(con),
        throughput=throughput[0] if throughput else None,
        latency=_read(con, Latency, "latency"),
        breakdown=_breakdown(con),
        findings=_read(con, FoundFact, "findings ORDER BY position"),
        correctness=_correctness(con),
        coverage=_read(con, Coverage, f"coverage {_by_phase('phase')}"),
        collectors=_read(con, CollectorState, _COLLECTORS),
        overhead=_read(con, Overhead, f"overhead {_by_phase('phase')}, collector"),
        clocks=_read(con, Clock, _CLOCKS),
        unanswered=_read(con, Unanswered, _UNANSWERED),
        unclassified_share=_unclassified(con),
    )


_UNANSWERED = """(
  SELECT * FROM can_answer WHERE NOT answerable
  -- Where a relation is empty, its columns need no mention.
  QUALIFY of_columns IS NULL
    OR count(*) FILTER (of_columns IS NULL) OVER (PARTITION BY relation) = 0
) ORDER BY reason, relation, of_columns"""

_COLLECTORS = """(
  SELECT collector, state, reason, count(*) AS places, sum(bytes)::BIGINT AS bytes,
    sum(records)::BIGINT AS records, sum(dropped)::BIGINT AS dropped,
    sum(unreadable)::BIGINT AS unreadable
  FROM collection GROUP BY collector, state, reason
) ORDER BY collector, state, reason"""

_CLOCKS = """(
  SELECT source, method, count(*) AS clocks, count(*) - count(residual_ns) AS unknown,
    max(residual_ns) AS residual_ns,
    max(abs(drift_ppb)) AS largest_drift_ppb, sum(samples)::BIGINT AS samples
  FROM clock_offsets GROUP BY source, method
) ORDER BY source, method"""


def _unclassified(con: duckdb.DuckDBPyConnection) -> float | None:
    """Rule `unknown-kernel`: the last of the table, for names that nobody has seen."""
    row = con.execute(
        """
        SELECT sum(end_ns - start_ns) FILTER (rule = 'unknown-kernel') AS unknown,
          sum(end_ns - start_ns) AS kernels
        FROM spans WHERE timeline = 'device' AND category IN ('compute', 'comm', 'comm_fused')
          AND rule IS NOT NULL
        """
    ).fetchone()
    return float((row[0] or 0) / row[1]) if row and row[1] else None


def _read(con: duckdb.DuckDBPyConnection, kind: type[T], source: str) -> tuple[T, ...]:
    """Rows of a table or view whose columns are named as the fields of a dataclass."""
    names = ", ".join(field.name for field in fields(kind))  # type: ignore[arg-type]
    return tuple(kind(*row) for row in con.execute(f"SELECT {names} FROM {source}").fetchall())


def _by_phase(column: str) -> str:
    order = ", ".join(f"'{phase}'" for phase in MEASURED_PHASES)
    return f"ORDER BY list_position([{order}], {column}) NULLS LAST, {column}"


def _run_facts(con: duckdb.DuckDBPyConnection) -> RunFacts:
    names = [field.name for field in fields(RunFacts) if field.name not in ("ranks", "hosts")]
    row = con.execute(f"SELECT {', '.join(names)} FROM runs ORDER BY run_id").fetchone()
    if row is None:
        raise EvidenceError("the database describes no run", "make it anew with `harness ingest`")
    hosts = con.execute(
        "SELECT DISTINCT host FROM ranks WHERE host IS NOT NULL ORDER BY host"
    ).fetchall()
    # Evidence that says nothing of ranks themselves (NCCL's logs alone) shows whose calls they are.
    ranks = con.execute(
        """SELECT coalesce(nullif(count(DISTINCT rank), 0),
             (SELECT count(DISTINCT rank) FROM collectives_all)) FROM ranks"""
    ).fetchone()
    return RunFacts(
        **dict(zip(names, row, strict=True)),
        ranks=ranks[0] if ranks else 0,
        hosts=tuple(host for (host,) in hosts),
    )


def _breakdown(con: duckdb.DuckDBPyConnection) -> tuple[RankBreakdown, ...]:
    names = [field.name for field in fields(RankBreakdown) if field.name != "parts"]
    rows = con.execute(
        f"""
        SELECT b.window_ns, {", ".join("b." + part for part in PARTS)},
          b.rank, k.stage, k.tp_rank, k.host, b.phase, b.timeline, b.evidence, b.units, b.left_out,
          b.sampled_units, b.slowed
        FROM {parts_relation(con)} b LEFT JOIN ranks k ON k.run_id = b.run_id AND k.rank = b.rank
        {_by_phase("b.phase")}, b.rank
        """
    ).fetchall()
    after = 1 + len(PARTS)
    return tuple(
        RankBreakdown(
            **dict(zip(names, row[after:], strict=True)),
            parts=Parts(row[0], dict(zip(PARTS, row[1:after], strict=True))),
        )
        for row in rows
    )


def _correctness(con: duckdb.DuckDBPyConnection) -> Correctness | None:
    row = con.execute("SELECT correctness FROM runs ORDER BY run_id").fetchone()
    return read_correctness(row[0]) if row and row[0] is not None else None
