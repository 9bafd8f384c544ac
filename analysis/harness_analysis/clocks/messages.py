"""Clocks of hosts tied by what their ranks sent each other, where nobody measured round trips.

Nothing is received before it was sent, and no rank leaves a collective before all have entered
it. So every message bounds the offset between two hosts' clocks on one side, a message the other
way or a collective on the other, and the tightest bounds of a while work like one round trip
(`fit_round_trips`): their middle is the offset, half their width the error. It is as large
as the quickest exchange took: tens of microseconds for small messages, where wall clocks that
are kept by NTP lie a millisecond apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness_analysis.clocks.axis import TIMES, aligned, clock_select
from harness_analysis.clocks.mapping import Mapping, OffsetSample, fit_round_trips

if TYPE_CHECKING:
    import duckdb

METHOD = "messages"
WINDOWS = 16
"""The recording is bounded piece by piece, so that a drift shows."""
SHORTEST_NS = 2_000_000_000
"""A piece is no shorter than this."""
UNTIED = ("wall_clock", "none")

_BOUNDS = f"""
WITH clocks AS (
  SELECT rank, any_value(clock_domain) AS domain FROM run.clock_offsets
  WHERE source = 'app_timers' AND rank IS NOT NULL AND timeline IS DISTINCT FROM 'device'
  GROUP BY rank HAVING count(DISTINCT clock_domain) = 1
), calls AS (
  SELECT c.*, k.domain FROM collective_parts c JOIN clocks k USING (rank)
  WHERE c.source = 'app_timers' AND c.timeline = 'host' AND c.seq IS NOT NULL
    AND c.start_ns IS NOT NULL AND c.end_ns IS NOT NULL
), together AS (
  SELECT comm_group, seq, domain, max(start_ns) AS start_ns, min(end_ns) AS end_ns
  FROM calls WHERE op IN (FROM synchronising) GROUP BY ALL
), messages AS (
  SELECT s.domain AS from_domain, s.start_ns, r.domain AS to_domain, r.end_ns
  FROM calls s JOIN calls r USING (src_rank, dst_rank, seq)
  WHERE s.op = 'send' AND r.op = 'recv' AND s.domain <> r.domain
), bounds AS (
  SELECT a.domain AS known, b.domain AS other, b.end_ns AS at_ns,
    a.start_ns - b.end_ns AS low, a.end_ns - b.start_ns AS high
  FROM together a JOIN together b USING (comm_group, seq) WHERE a.domain <> b.domain
  UNION ALL
  SELECT from_domain, to_domain, end_ns, start_ns - end_ns, NULL FROM messages
  UNION ALL
  SELECT to_domain, from_domain, start_ns, NULL, end_ns - start_ns FROM messages
), pieces AS (
  SELECT *, (at_ns - min(at_ns) OVER ())
    // greatest({SHORTEST_NS}, (max(at_ns) OVER () - min(at_ns) OVER ()) // {WINDOWS} + 1) AS piece
  FROM bounds
)
SELECT known, other, ((min(at_ns)::HUGEINT + max(at_ns)) // 2)::BIGINT, max(low), min(high)
FROM pieces GROUP BY known, other, piece HAVING max(low) <= min(high)
ORDER BY known, other, piece
"""


def tie_clocks(con: duckdb.DuckDBPyConnection) -> None:
    """Map hosts whose clocks nothing ties by the bounds that their ranks' calls put on them.

    Changes run.clock_offsets, temp table rank_clock, and the times of such hosts' rows in all
    tables. Linear in the calls.
    """
    untied = _domains(con, f"method IN {UNTIED}")
    if not untied:
        return
    tied = {domain: _unmoved(domain) for domain in _domains(con, f"method NOT IN {UNTIED}")}
    seen: dict[tuple[str, str], list[tuple[int, int, int]]] = {}
    for known, other, *bound in con.execute(_BOUNDS).fetchall():
        seen.setdefault((known, other), []).append((bound[0], bound[1], bound[2]))
    moved = False
    # Outwards from the reference: what ties a host may itself have been tied by messages.
    while reach := [pair for pair in seen if pair[0] in tied and pair[1] in untied]:
        known, other = min(reach, key=lambda pair: min(high - low for _, low, high in seen[pair]))
        trips = [
            OffsetSample(at, (low + high) // 2 + tied[known].apply(at) - at, high - low)
            for at, low, high in seen[known, other]
        ]
        tied[other] = fit_round_trips(other, trips, METHOD)
        untied.remove(other)
        _move(con, tied[other])
        moved = True
    if moved:
        con.execute(
            f"CREATE OR REPLACE TEMP TABLE rank_clock AS {clock_select('run.clock_offsets')}"
        )


def _domains(con: duckdb.DuckDBPyConnection, condition: str) -> list[str]:
    rows = con.execute(
        f"""
        SELECT DISTINCT clock_domain FROM run.clock_offsets
        WHERE source = 'app_timers' AND rank IS NOT NULL AND timeline IS DISTINCT FROM 'device'
          AND {condition} ORDER BY 1
        """
    ).fetchall()
    return [domain for (domain,) in rows]


def _unmoved(domain: str) -> Mapping:
    return Mapping(domain, 0, 0, 0, None, METHOD, 0)


def _move(con: duckdb.DuckDBPyConnection, by: Mapping) -> None:
    """Move everything whose times rest on a host's clock, `by` on times of the axis so far."""
    # A device is tied to its host by round trips, and moves with it.
    con.execute(
        """
        CREATE OR REPLACE TEMP TABLE moving AS
        SELECT DISTINCT source, rank, host FROM run.clock_offsets WHERE clock_domain = ?
        """,
        [by.domain],
    )
    # Views of rows that are kept in files map raw times by the clocks themselves.
    views = con.execute("SELECT database_name || '.' || view_name FROM duckdb_views()").fetchall()
    terms = [str(term) for term in (by.offset_ns, by.drift_ppb, by.ref_ns)]
    for table, columns in TIMES.items():
        name = "temp.collective_parts" if table == "collectives" else f"run.{table}"
        if (name,) not in views:
            sets = ", ".join(f"{column} = {aligned(column, *terms)}" for column in columns)
            con.execute(f"UPDATE {name} SET {sets} WHERE {_of_domain(con, name)}")
    drift = f"(coalesce(ref_ns, {by.ref_ns} - offset_ns) + offset_ns - {by.ref_ns})::HUGEINT"
    con.execute(
        f"""
        UPDATE run.clock_offsets SET
          offset_ns = offset_ns + {by.offset_ns}
            + ({drift} * {by.drift_ppb} // 1000000000)::BIGINT,
          drift_ppb = drift_ppb + {by.drift_ppb},
          residual_ns = CASE WHEN clock_domain = $1 THEN {by.residual_ns} ELSE residual_ns END,
          samples = CASE WHEN clock_domain = $1 THEN {by.samples} ELSE samples END,
          method = CASE WHEN clock_domain = $1 THEN '{METHOD}' ELSE method END
        WHERE clock_domain = $1 OR (timeline = 'device' AND method = 'ping_pong'
          AND rank IN (SELECT rank FROM moving WHERE rank IS NOT NULL))
        """,
        [by.domain],
    )


def _of_domain(con: duckdb.DuckDBPyConnection, table: str) -> str:
    """Which rows of a table have the moving clock."""
    columns = {row[0] for row in con.execute(f"DESCRIBE {table}").fetchall()}
    by_rank = "rank IN (SELECT rank FROM moving WHERE rank IS NOT NULL)"
    if "source" in columns:
        by_rank = "(source, rank) IN (SELECT (source, rank) FROM moving WHERE rank IS NOT NULL)"
    if "host" not in columns or table == "run.ranks":
        return by_rank
    return f"({by_rank} OR (rank IS NULL AND host IN (SELECT host FROM moving)))"
