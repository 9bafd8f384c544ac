"""The build in pieces of bounded size: groups of ranks to match, ranks to divide.

What belongs together stays together: all ranks of a group's collectives, both sides of a pair's
messages; all spans of a rank. So memory depends on the largest group and the busiest rank, not
on how many there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import duckdb

K = TypeVar("K")

CHUNK_ROWS = 2_000_000
"""Rows taken at once, where what belongs together is not more."""

_KEY = """coalesce(CASE WHEN op IN ('send', 'recv')
  THEN 'p2p ' || lpad(least(src_rank, dst_rank)::VARCHAR, 9, '0') ELSE comm_group END, '')"""
"""Equal on both sides of a message, and on all ranks of a group."""

_TIMES = """* REPLACE (coalesce(duration_ns, end_ns - start_ns) AS duration_ns,
  -- An eager event pair encloses the launch: what lies before the return of the call, and up to
  -- 100 us after it (what a launch took on H200s in virtual machines), may be launch.
  CASE WHEN return_ns IS NOT NULL AND timeline = 'device' AND source NOT IN (FROM evidence_exact)
       THEN greatest(0, end_ns - greatest(start_ns, return_ns) - 100000)
       ELSE low_ns END AS low_ns)"""


_SPANS = """rank, source, timeline, batch, microbatch, repeat, phase, step, warmup, perturbed_by,
  span_id, stream, name, category, start_ns, end_ns, complete, cpu_start_ns, cpu_ns"""
_COLLECTIVES = """rank, source, timeline, comm_group, seq, span_id, op, group_size, start_ns,
  end_ns, low_ns, transfer_ns, wait_ns, wait_method"""
"""What the scripts and modules that read these relations use."""


def bounded(sizes: Sequence[tuple[K, int]], most: int) -> list[list[K]]:
    """Neighbouring keys in lists whose sizes sum up to at most `most`, or of one key."""
    lists: list[list[K]] = []
    total = 0
    for key, size in sizes:
        if not lists or total + size > most:
            lists.append([])
            total = 0
        lists[-1].append(key)
        total += size
    return lists


def group_chunks(con: duckdb.DuckDBPyConnection, most: int | None = None) -> Iterator[None]:
    """Makes the temporary relation `parts_here` out of `collective_parts`, chunk by chunk."""
    sizes = con.execute(
        f"SELECT {_KEY} AS key, count(*) FROM collective_parts GROUP BY key ORDER BY key"
    ).fetchall()
    chunks = bounded([(str(key), size) for key, size in sizes], most or CHUNK_ROWS)
    for keys in chunks or [[""]]:
        kind, where = "VIEW", "true"
        if len(chunks) > 1:
            kind, where = "TABLE", f"{_KEY} BETWEEN {_text(keys[0])} AND {_text(keys[-1])}"
        con.execute(
            f"CREATE OR REPLACE TEMP {kind} parts_here AS "
            f"SELECT {_TIMES} FROM collective_parts WHERE {where}"
        )
        yield


def rank_chunks(con: duckdb.DuckDBPyConnection, most: int | None = None) -> Iterator[None]:
    """Makes the temporary tables `spans_here` and `collectives_here` out of the run's, some ranks
    at a time; spans without a rank are in none."""
    sizes = con.execute(
        "SELECT rank, count(*) FROM run.spans WHERE rank IS NOT NULL GROUP BY rank "
        "UNION ALL SELECT DISTINCT rank, 0 FROM run.collectives WHERE rank IS NOT NULL"
    ).fetchall()
    totals: dict[int, int] = {}
    for rank, size in sizes:
        totals[rank] = max(size, totals.get(rank, 0))
    for ranks in bounded(sorted(totals.items()), most or CHUNK_ROWS):
        where = f"rank BETWEEN {ranks[0]} AND {ranks[-1]}"
        for name, columns in (("spans", _SPANS), ("collectives", _COLLECTIVES)):
            con.execute(
                f"CREATE OR REPLACE TEMP TABLE {name}_here AS "
                f"SELECT {columns} FROM run.{name} WHERE {where} ORDER BY rank"
            )
        yield


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
