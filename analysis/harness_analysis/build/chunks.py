"""The build in pieces of bounded size: groups of ranks to match, ranks to divide, groups to judge.

What belongs together stays together: all ranks of a group's collectives, both sides of a pair's
messages; all spans of a rank. So memory depends on the largest group and the busiest rank, not
on how many there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from harness_schemas.tables import quoted

if TYPE_CHECKING:
    import duckdb

K = TypeVar("K")

CHUNK_ROWS = 500_000
"""Rows taken at once, where what belongs together is not more: all that is derived from them
fits into the smallest memory that DuckDB is given, so the cost of a row does not grow."""

EVERYTHING = ("true", "true")
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
_USED = """(category IN ('unit', 'compute', 'comm', 'comm_fused', 'memcpy', 'memset', 'graph', 'io')
  OR name IN ('torch_profiler.window', 'nsys.window'))"""
"""Of the spans: calls of the runtime, layers and the like divide nothing."""


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


def group_chunks(con: duckdb.DuckDBPyConnection, relation: str) -> Iterator[None]:
    """Makes the temporary relation `parts_here` out of `relation`, some groups at a time, and the
    macro `ranks_in(rank)`, which counts the ranks of one call."""
    chunks = _divided(con, relation, _KEY)
    kind = "TABLE" if len(chunks) > 1 else "VIEW"
    yield from _parts(con, relation, chunks, kind)


def call_chunks(con: duckdb.DuckDBPyConnection, relation: str) -> Iterator[None]:
    """The same, where a call needs no others of its group: some ordinals of a group at a time."""
    (ranks,) = con.execute(f"SELECT count(DISTINCT rank) FROM {relation}").fetchone() or (0,)
    key = f"{_KEY} || coalesce(' ' || seq // {max(CHUNK_ROWS // max(ranks, 1), 1)}, '')"
    yield from _parts(con, relation, _divided(con, relation, key, "seq"), "VIEW")


def _parts(
    con: duckdb.DuckDBPyConnection, relation: str, chunks: list[tuple[str, str]], kind: str
) -> Iterator[None]:
    for of_groups, of_some in chunks:
        con.execute(
            f"CREATE OR REPLACE TEMP {kind} parts_here AS "
            f"SELECT {_TIMES} FROM {relation} WHERE {of_groups} AND {of_some}"
        )
        con.execute(f"CREATE OR REPLACE TEMP MACRO ranks_in(rank) AS {_ranks_in(con)}")
        yield
    release(con, "parts_here")


def _ranks_in(con: duckdb.DuckDBPyConnection) -> str:
    """To count distinct ranks takes twice as long; it is needed where one shows a call twice."""
    (twice,) = con.execute(
        "SELECT count(*) <> count(DISTINCT hash(source, timeline, comm_group, seq, rank)) "
        "FROM parts_here WHERE op NOT IN ('send', 'recv') AND comm_group IS NOT NULL "
        "AND seq IS NOT NULL AND rank IS NOT NULL"
    ).fetchone() or (True,)
    return "count(DISTINCT rank)" if twice else "count(rank)"


def judged_chunks(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Makes the temporary views `members_here` (collectives), `instances_here` and `gaps_here` of
    some groups at a time."""
    con.execute(
        "CREATE OR REPLACE TEMP VIEW joint AS FROM run.collectives "
        "WHERE op NOT IN ('send', 'recv') AND comm_group IS NOT NULL"
    )
    for of_groups, of_ranks in _divided(con, "joint", "comm_group") or [EVERYTHING]:
        for name, relation, where in (
            ("members", "joint", f"{of_groups} AND {of_ranks}"),
            ("instances", "run.collective_instances", of_groups),
            ("gaps", "gaps", f"{of_groups} AND {of_ranks}"),
        ):
            con.execute(f"CREATE OR REPLACE TEMP VIEW {name}_here AS FROM {relation} WHERE {where}")
        yield


def _divided(
    con: duckdb.DuckDBPyConnection, relation: str, key: str, order: str = "rank"
) -> list[tuple[str, str]]:
    """Conditions that divide `relation` by `key`, in the order of a column: by ranks, a rank's
    collectives lie together afterwards. The second one, on that column, is implied by the first;
    it lets DuckDB pass over what is about others. None where there are no rows."""
    rows = con.execute(
        f"""
        SELECT {key} AS key, count(*), count({order}) = count(*), min({order}), max({order})
        FROM {relation} GROUP BY key ORDER BY min({order}), key
        """
    ).fetchall()
    chunks = bounded([((key, *found), size) for key, size, *found in rows], CHUNK_ROWS)
    if len(chunks) <= 1:
        return [EVERYTHING] * len(chunks)
    found = []
    for keys in chunks:
        names, known, first, last = zip(*keys, strict=True)
        within = f"{order} BETWEEN {min(first)} AND {max(last)}" if all(known) else "true"
        found.append((f"{key} IN ({', '.join(map(quoted, names))})", within))
    return found


def rank_chunks(con: duckdb.DuckDBPyConnection, in_files: bool) -> Iterator[None]:
    """Makes the temporary relations `sources_here`, `spans_here` and `collectives_here` out of the
    run's, some ranks at a time; spans without a rank are in none.

    `sources_here`: what each rank's spans come from, and whether they show its device and units on
    its host. `spans_here`: those that divide time; of several ranks a copy, since it is read rank
    by rank, and where they are kept `in_files`.
    """
    con.execute(
        """
        CREATE TEMP TABLE rank_sources AS
        SELECT rank, source, count(*) AS spans, bool_or(timeline = 'device') AS on_device,
          bool_or(timeline = 'host' AND category = 'unit') AS host_units
        FROM run.spans WHERE rank IS NOT NULL GROUP BY rank, source
        """
    )
    sizes: list[tuple[int, int]] = con.execute(
        """
        SELECT rank, max(spans) FROM (
          SELECT rank, sum(spans)::BIGINT AS spans FROM rank_sources GROUP BY rank
          UNION ALL SELECT DISTINCT rank, 0 FROM run.collectives WHERE rank IS NOT NULL)
        GROUP BY rank ORDER BY rank
        """
    ).fetchall()
    for ranks in bounded(sizes, CHUNK_ROWS):
        where = f"rank BETWEEN {ranks[0]} AND {ranks[-1]}"
        order = "" if ranks[0] == ranks[-1] else "ORDER BY rank"
        con.execute(f"CREATE OR REPLACE TEMP VIEW sources_here AS FROM rank_sources WHERE {where}")
        copied = "TABLE" if in_files or len(ranks) > 1 else "VIEW"
        release(con, "spans_here")  # the other kind of relation cannot be replaced
        for kind, name, columns, kept in (
            (copied, "spans", _SPANS, f"{where} AND {_USED}"),
            ("TABLE", "collectives", _COLLECTIVES, where),
        ):
            con.execute(
                f"CREATE OR REPLACE TEMP {kind} {name}_here AS "
                f"SELECT {columns} FROM run.{name} WHERE {kept} {order}"
            )
        yield


def release(con: duckdb.DuckDBPyConnection, *names: str) -> None:
    """Drop temporary relations, so that what follows has their memory."""
    import duckdb

    for name in names:
        # To ask which there are takes longer than to try.
        try:
            con.execute(f"DROP TABLE IF EXISTS temp.{name}")
        except duckdb.CatalogException:
            con.execute(f"DROP VIEW IF EXISTS temp.{name}")
