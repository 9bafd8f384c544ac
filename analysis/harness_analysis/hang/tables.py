"""The states of ranks at the end of a run, out of its database: who kept the others then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness_analysis.hang.diagnose import diagnose
from harness_analysis.hang.model import Call, Diagnosis, RankState
from harness_analysis.hang.say import sentence

if TYPE_CHECKING:
    import duckdb

SOURCES = ("app_timers", "flight_recorder")
"""Evidence that keeps calls that never ended, the better first."""


def standing(con: duckdb.DuckDBPyConnection) -> tuple[Diagnosis, str] | None:
    """Who kept the ranks when they ended, and that in a sentence; None: no call was left open."""
    source = _source(con)
    if source is None:
        return None
    states = {state.rank: state for state in _states(con, source)}
    found = diagnose(list(states.values()), 0, 0)
    return found, sentence(found, states)


def _source(con: duckdb.DuckDBPyConnection) -> str | None:
    rows = con.execute(
        "SELECT DISTINCT source FROM collectives_all WHERE unsplit_reason = 'never ended'"
    ).fetchall()
    return next((source for source in SOURCES if (source,) in rows), None)


def _states(con: duckdb.DuckDBPyConnection, source: str) -> list[RankState]:
    open_calls = _open_calls(con, source)
    entered: dict[int, dict[str, int]] = {}
    sent: dict[int, dict[tuple[str, int], int]] = {}
    received: dict[int, dict[tuple[str, int], int]] = {}
    for rank, group, op, peer, reached in con.execute(
        """
        SELECT rank, comm_group, if(op IN ('send', 'recv'), op, NULL) AS message,
          if(message = 'send', dst_rank, if(message = 'recv', src_rank, NULL)) AS peer, max(seq)
        FROM collectives_all
        WHERE source = ? AND rank IS NOT NULL AND comm_group IS NOT NULL AND seq IS NOT NULL
        GROUP BY ALL
        """,
        [source],
    ).fetchall():
        if op is None:
            entered.setdefault(rank, {})[group] = reached
        elif peer is not None:
            (sent if op == "send" else received).setdefault(rank, {})[group, peer] = reached
    closed = {
        rank
        for (rank,) in con.execute(
            "SELECT rank FROM ranks WHERE complete AND rank IS NOT NULL"
        ).fetchall()
    }
    return [
        RankState(
            rank,
            ended=rank in closed and rank not in open_calls,
            moved_ns=0,
            call=open_calls.get(rank),
            entered=entered.get(rank, {}),
            sent=sent.get(rank, {}),
            received=received.get(rank, {}),
            where=where,
        )
        for rank, where in _places(con)
    ]


def _open_calls(con: duckdb.DuckDBPyConnection, source: str) -> dict[int, Call]:
    """The first call that each rank did not leave: calls on a device are entered ahead."""
    rows = con.execute(
        """
        SELECT rank, op, comm_group, seq, bytes, src_rank, dst_rank, start_ns FROM collectives_all
        WHERE unsplit_reason = 'never ended' AND source = ? AND rank IS NOT NULL
        QUALIFY row_number() OVER (PARTITION BY rank
          ORDER BY start_ns NULLS LAST, enqueue_ns NULLS LAST, seq) = 1
        """,
        [source],
    ).fetchall()
    found = {}
    for rank, op, group, seq, size, src, dst, start in rows:
        peer = dst if op == "send" else src if op == "recv" else None
        found[rank] = Call(op, group, members_of(group), seq, size, peer, start)
    return found


def _places(con: duckdb.DuckDBPyConnection) -> list[tuple[int, str]]:
    """Every rank, and the unit that it did not end."""
    rows: list[tuple[Any, ...]] = con.execute(
        """
        SELECT r.rank, s.phase, s.step, s.batch FROM ranks r
        LEFT JOIN (SELECT rank, arg_max(phase, start_ns) AS phase, arg_max(step, start_ns) AS step,
            arg_max(batch, start_ns) AS batch
          FROM spans WHERE category = 'unit' AND complete = false GROUP BY rank) s USING (rank)
        WHERE r.rank IS NOT NULL ORDER BY r.rank
        """
    ).fetchall()
    return [(rank, _place(phase, step, batch)) for rank, phase, step, batch in rows]


def _place(phase: str | None, step: int | None, batch: int | None) -> str:
    if phase is None:
        return ""
    text = phase + (f" step {step}" if step is not None and phase != "prefill" else "")
    return text + (f" of batch {batch}" if batch is not None else "")


def members_of(group: str | None) -> tuple[int, ...]:
    """Global ranks out of a group's name (`[0,1]#0`); empty where it has none."""
    inside = (group or "").partition("[")[2].partition("]")[0]
    parts = inside.split(",")
    return tuple(map(int, parts)) if all(part.isdigit() for part in parts) else ()
