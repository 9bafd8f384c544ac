"""What profilers show (communication time by rank) beside what it hides (for whom they waited)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness_analysis.report.numbers.units import HEADLINE, STEPPING
from harness_analysis.report.numbers.waiting import best_source

if TYPE_CHECKING:
    import duckdb

JOINT = "op NOT IN ('send', 'recv', 'broadcast', 'reduce', 'gather', 'scatter')"
"""Calls that no rank leaves before the last has come. In the others ranks wait for a sender or a
root: in a pipeline by construction, which is nobody's lateness."""


@dataclass(frozen=True)
class RankBlame:
    """Nanoseconds a decode step, mean over steps.

    `comm_ns`: summed duration of the rank's joint calls (`JOINT`), which is what a profiler calls
    NCCL time. `caused_ns`: how long all others together waited because this rank came last.
    """

    rank: int
    host: str | None
    calls: int
    comm_ns: float
    transfer_ns: float | None
    wait_ns: float | None
    times_last: int
    caused_ns: float


@dataclass(frozen=True)
class StepTimes:
    """A decode step as measured and without the late rank's lateness, in nanoseconds."""

    rank: int
    measured_ns: float
    predicted_ns: float
    steps: int
    baseline: str | None = None
    """Name of a run without the lateness, and its measured step."""
    baseline_ns: float | None = None


@dataclass(frozen=True)
class Blame:
    """Collectives in the steps of decoding, by the evidence that tells waiting best."""

    source: str
    headline: bool
    """False: only warm-up or perturbed steps tell wait from transfer."""
    device: str | None
    steps: int
    collectives: int
    decided: int
    """Collectives in which a last rank can be named."""
    ranks: tuple[RankBlame, ...]
    culprit: int | None
    """The rank that the findings name; None: nobody is late in most steps at a material cost."""
    step: StepTimes | None

    @property
    def wait_share(self) -> float | None:
        """Share of the summed communication time that is waiting; None: not known of all."""
        total = sum(row.comm_ns for row in self.ranks)
        waits = [row.wait_ns for row in self.ranks if row.wait_ns is not None]
        return sum(waits) / total if total and len(waits) == len(self.ranks) else None

    def of_rank(self, rank: int) -> RankBlame:
        """The row of a rank."""
        return next(row for row in self.ranks if row.rank == rank)


def load_blame(
    con: duckdb.DuckDBPyConnection, baseline: duckdb.DuckDBPyConnection | None = None
) -> Blame | None:
    """None where no collective of a decode step tells waiting from transfer.

    `baseline`: a run of the same work without the lateness, to stand beside the prediction.
    """
    found = best_source(con, JOINT)
    if found is None:
        return None
    source, headline = found
    kept = f"{STEPPING} AND source = ? AND {JOINT} AND {HEADLINE if headline else 'true'}"
    counts = con.execute(
        f"""
        SELECT count(DISTINCT (phase, repeat, batch, microbatch, step)), count(*),
          count(last_arriver) FROM collective_instances WHERE {kept}
        """,
        [source],
    ).fetchone()
    if counts is None or not counts[0]:
        return None
    steps, collectives, decided = counts
    culprit = _culprit(con, source)
    # Strangers' evidence does not say the device; what the device itself shows is NCCL's.
    device = con.execute(
        """
        SELECT coalesce((SELECT any_value(device) FROM runs),
          (SELECT 'cuda' FROM collectives_all WHERE source = ? AND timeline = 'device' LIMIT 1))
        """,
        [source],
    ).fetchone()
    return Blame(
        source=source,
        headline=headline,
        device=device[0] if device else None,
        steps=steps,
        collectives=collectives,
        decided=decided,
        ranks=_ranks(con, kept, source, steps),
        culprit=culprit,
        step=_step_times(con, source, culprit, headline, baseline),
    )


def _ranks(
    con: duckdb.DuckDBPyConnection, kept: str, source: str, steps: int
) -> tuple[RankBlame, ...]:
    rows = con.execute(
        f"""
        WITH shown AS (
          SELECT rank, count(*) AS calls, sum(duration_ns) / $steps AS comm_ns,
            sum(transfer_ns) / $steps AS transfer_ns, sum(wait_ns) / $steps AS wait_ns
          FROM collectives_all WHERE {kept.replace("?", "$source")}
          GROUP BY rank
        ), caused AS (
          SELECT rank, sum(times_last)::BIGINT AS times_last,
            sum(wait_caused_ns) / $steps AS caused_ns
          FROM stragglers WHERE source = $source AND {STEPPING} GROUP BY rank
        )
        SELECT s.rank, k.host, s.calls, s.comm_ns, s.transfer_ns, s.wait_ns,
          coalesce(c.times_last, 0), coalesce(c.caused_ns, 0)
        FROM shown s LEFT JOIN caused c ON c.rank = s.rank
        LEFT JOIN ranks k ON k.rank = s.rank
        WHERE s.comm_ns IS NOT NULL ORDER BY s.rank
        """,
        {"source": source, "steps": steps},
    ).fetchall()
    return tuple(RankBlame(*row) for row in rows)


def _culprit(con: duckdb.DuckDBPyConnection, source: str) -> int | None:
    row = con.execute(
        f"""
        SELECT rank FROM findings WHERE kind = 'straggler' AND {STEPPING}
        ORDER BY evidence = ? DESC NULLS LAST, position LIMIT 1
        """,
        [source],
    ).fetchone()
    return row[0] if row else None


def _step_times(
    con: duckdb.DuckDBPyConnection,
    source: str,
    culprit: int | None,
    headline: bool,
    baseline: duckdb.DuckDBPyConnection | None,
) -> StepTimes | None:
    row = con.execute(
        f"""
        SELECT rank, step_ms * 1e6, predicted_step_ms * 1e6, steps FROM what_if
        WHERE source = $source AND {STEPPING} AND step_ms IS NOT NULL
          AND predicted_step_ms IS NOT NULL AND rank = $culprit
        ORDER BY saving_ms DESC LIMIT 1
        """,
        {"source": source, "culprit": culprit},
    ).fetchone()
    if row is None:
        return None
    rank, measured_ns, predicted_ns, steps = row
    name, baseline_ns = (None, None) if baseline is None else _baseline(baseline, source, headline)
    return StepTimes(rank, measured_ns, predicted_ns, steps, name, baseline_ns)


def _baseline(
    con: duckdb.DuckDBPyConnection, source: str, headline: bool
) -> tuple[str | None, float | None]:
    """The other run's name and its median step, by the same evidence where it has it."""
    wanted = HEADLINE if headline else f"NOT coalesce(warmup, false) AND NOT ({HEADLINE})"
    row = con.execute(
        f"""
        WITH lengths AS (
          SELECT evidence, max(window_ns) AS ns FROM step_breakdown_all
          WHERE {STEPPING} AND complete AND {wanted}
          GROUP BY evidence, phase, repeat, batch, microbatch, step
        )
        SELECT median(ns) FROM lengths WHERE evidence = ?
        """,
        [source],
    ).fetchone()
    name = con.execute("SELECT coalesce(name, run_id) FROM runs ORDER BY run_id").fetchone()
    return (name[0] if name else None), (row[0] if row else None)
