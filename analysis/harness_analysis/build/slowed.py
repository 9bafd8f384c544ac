"""Requests of which a collector slowed some steps: no measure of the run, where others are.

A profiler's window makes single steps many times longer, and with them the whole request. Where
that is at most a twentieth of its time (events in every 32nd replay of a graph) it counts; where
every measured request was slowed so, all count, and a finding says it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import duckdb

WORST_SHARE: Final = 0.05
_SAME: Final = """r.request_id = s.request_id AND r.batch IS NOT DISTINCT FROM s.batch
  AND r.repeat IS NOT DISTINCT FROM s.repeat"""
_SLOWED: Final = f"""
WITH gaps AS (
  SELECT request_id, batch, repeat, perturbed_by,
    coalesce(device_ns, host_ns) - lag(coalesce(device_ns, host_ns)) OVER (
      PARTITION BY request_id, batch, repeat ORDER BY step) AS ns
  FROM step_tokens WHERE n_tokens > 0 AND NOT coalesce(warmup, false)
), usual AS (SELECT median(ns) AS ns FROM gaps WHERE perturbed_by IS NULL)
SELECT request_id, batch, repeat, mode(perturbed_by) AS perturbed_by, sum(g.ns) AS all_ns,
  sum(g.ns - usual.ns) FILTER (perturbed_by IS NOT NULL) AS lost_ns
FROM gaps g, usual GROUP BY ALL HAVING lost_ns > {WORST_SHARE} * all_ns
"""


@dataclass(frozen=True)
class Slowed:
    """Measured requests that were slowed, by what, and the share of their time that is that."""

    requests: int
    by: str
    share: float


def mark_slowed(con: duckdb.DuckDBPyConnection) -> None:
    """Set `requests.perturbed_by` of slowed requests, if any measured one was not slowed."""
    con.execute(
        f"""
        UPDATE requests AS r SET perturbed_by = s.perturbed_by FROM ({_SLOWED}) s
        WHERE {_SAME} AND r.perturbed_by IS NULL AND EXISTS (
          FROM requests r WHERE r.perturbed_by IS NULL AND NOT coalesce(r.warmup, false)
            AND NOT EXISTS (FROM ({_SLOWED}) s WHERE {_SAME}))
        """
    )


def still_counted(con: duckdb.DuckDBPyConnection) -> Slowed | None:
    """The slowed requests that headline numbers rest on; None: these rest on others."""
    row = con.execute(
        f"""
        SELECT count(*), mode(s.perturbed_by), sum(lost_ns) / sum(all_ns)
        FROM ({_SLOWED}) s JOIN requests r ON {_SAME}
        WHERE r.perturbed_by IS NULL AND NOT coalesce(r.warmup, false)
        """
    ).fetchone()
    return Slowed(*row) if row and row[0] else None
