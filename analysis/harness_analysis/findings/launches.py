"""Whether decode is bound by launches: then its numbers measure the host, not the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness_analysis.findings.finding import Finding, percent

if TYPE_CHECKING:
    import duckdb

LAUNCH_BOUND = 0.3
"""Decode steps whose device idles more than this are bound by the launches of their host."""


@dataclass(frozen=True)
class Idle:
    """Share of decode in which the device of the worst rank had nothing to do."""

    rank: int
    share: float
    evidence: str
    perturbed_by: str | None
    """Only units that this collector slowed show it."""


def idle_device(con: duckdb.DuckDBPyConnection, run_id: str | None = None) -> Idle | None:
    """The worst rank's, since its peers wait for it instead of idling; None: no kernel evidence.

    From headline units, else from those that a collector slowed.
    """
    row = con.execute(
        """
        SELECT rank, sum(idle_ns) / sum(window_ns) AS share, any_value(evidence),
          any_value(perturbed_by)
        FROM step_breakdown
        WHERE ($1 IS NULL OR run_id = $1) AND phase = 'decode' AND timeline = 'device'
          AND idle_ns IS NOT NULL AND NOT coalesce(warmup, false)
        GROUP BY rank, perturbed_by IS NOT NULL
        ORDER BY perturbed_by IS NOT NULL, share DESC LIMIT 1
        """,
        [run_id],
    ).fetchone()
    return Idle(*row) if row else None


def launch_findings(con: duckdb.DuckDBPyConnection) -> list[Finding]:
    """A warning at the head of what is bound by launches."""
    idle = idle_device(con)
    if idle is None or idle.share <= LAUNCH_BOUND:
        return []
    slowed = f", in steps that {idle.perturbed_by} slowed" if idle.perturbed_by else ""
    text = (
        f"decode is launch-bound: rank {idle.rank}'s device idles {percent(idle.share)} of it "
        f"(by {idle.evidence}{slowed}): these numbers measure launches of the host, not the GPU; "
        "CUDA graphs remove them"
    )
    return [
        Finding(
            "notice", "launch_bound", text, rank=idle.rank, phase="decode", share=idle.share,
            evidence=idle.evidence,
        )
    ]  # fmt: skip
